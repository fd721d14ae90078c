"""Reading an opened state: from the tensors of its files to the integers that its point commits to.

Implements `specs/openings.md`, "State opening", items 3 and 4. Nothing may be read in two ways: a weight has one dtype
in each kind of run, and a float stands for a grid point only where it is one, but for the first state's.

Shows: which integers the files hold, under the program's names. Does not show: that a point commits to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pot.errors import Malformed
from pot.zk.family import GridTensor, Step, family_of
from pot.zk.semantics.fixed import WEIGHT_BITS, dequantise_array, quantise_array
from pot.zk.semantics.program import OPTIMIZER, is_remembered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.commitments.state import TensorEntry

    Ints = NDArray[np.int64]

__all__ = ["Semantics", "check_fresh", "state_of"]

Semantics = Literal["exact", "float"]


def state_of(
    program: Step, model: Sequence[TensorEntry], rest: Sequence[TensorEntry], *, semantics: Semantics,
    start: bool = False,
) -> dict[str, Ints]:  # fmt: skip
    """The program's state: weights from the model's tensors, everything else from `rest`.

    The model may hold other tensors, which are frozen, under any name but an optimizer's. In an exact run weights are
    integers on the grid of `quantise/1`, so a program with another grid would read other numbers; in a float run they
    are floats on the program's grid, at the start (`start`) those nearest to them. Raises `Malformed` where the tensors
    are not those of the program.
    """
    nodes = family_of(program).state_tensors
    found: dict[str, Ints] = {}
    for entry in model:
        if is_remembered(entry.name, nodes):  # a release would hand it on to the next run, as if it were a weight
            raise Malformed(f"state: {entry.name[:64]} is an optimizer's, but stands among the model's weights")
        if entry.name in nodes:
            found[entry.name] = _weight(entry, nodes[entry.name], semantics, start)
    for entry in rest:
        if entry.name not in nodes or not is_remembered(entry.name, nodes):
            raise Malformed(f"state: {entry.name[:64]} is no tensor of the state, or a weight, which the model holds")
        found[entry.name] = _integers(entry, nodes[entry.name])
    missing = sorted(nodes.keys() - found.keys())
    if missing:
        raise Malformed(f"state: the files hold no tensor {missing[0]}, which the program trains")
    return found


def check_fresh(program: Step, state: dict[str, Ints]) -> None:
    """What an optimizer remembers must be nothing in the first state: slots of weights are 0, powers of betas are 1.

    No parent's release says what it was, and momentum that came from elsewhere moves the weights. Raises `Malformed`.
    """
    nodes = family_of(program).state_tensors
    for name in (name for name in nodes if is_remembered(name, nodes)):
        first = 1 << max(0, nodes[name].bits) if name.startswith(OPTIMIZER) else 0
        if (state[name] != first).any():
            raise Malformed(f"state: {name} is not that of a fresh optimizer, but the run begins with it")


def _weight(entry: TensorEntry, node: GridTensor, semantics: Semantics, start: bool) -> Ints:
    if semantics == "float":
        return _grid_points(entry, node, start)
    if node.bits != WEIGHT_BITS:
        raise Malformed(
            f"state: the program reads {entry.name} with {node.bits} fraction bits, quantise/1 has {WEIGHT_BITS}"
        )
    return _integers(entry, node)


def _grid_points(entry: TensorEntry, node: GridTensor, start: bool) -> Ints:
    import numpy as np

    _check_form(entry, node, "F32")
    values = np.frombuffer(entry.data, "<f4").reshape(entry.shape)
    integers = quantise_array(values, node.bits, what=entry.name)
    same = dequantise_array(integers, node.bits).astype("<f4").tobytes() == values.tobytes()
    if not (same or start):  # bit by bit, as -0.0 equals 0.0; else others could be released
        raise Malformed(f"state: {entry.name} holds a value between the points of the program's grid")
    return integers


def _integers(entry: TensorEntry, node: GridTensor) -> Ints:
    import numpy as np

    _check_form(entry, node, "I64")
    return np.frombuffer(entry.data, "<i8").reshape(entry.shape).astype(np.int64)


def _check_form(entry: TensorEntry, node: GridTensor, dtype: str) -> None:
    """One dtype each: int64 weights in the release of a float run would load as numbers 2^28 times as large."""
    if entry.dtype != dtype:
        raise Malformed(
            f"state: tensor {entry.name[:64]} is {entry.dtype}, expected {dtype} (weights are I64 in an exact run, F32"
            " in a float run; all else of a state is I64)"
        )
    if tuple(node.shape) != tuple(entry.shape):
        raise Malformed(f"state: tensor {entry.name} has shape {list(entry.shape)}, the program's {node.shape}")
