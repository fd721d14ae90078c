"""`AutoProgram`: a step of family auto as a document. What it computes is an ONNX graph, named by digest.

Implements `specs/step-proof.md`, section "Family auto". An integer v of a state stands for v / 2^`scale`; batches are
integers of the records, as in family exact.

Shows: what a graph's vectors hold. Does not show: what the graph computes; whoever pins its circuit looks at the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from pot.canonical import Document, Hex32
from pot.errors import Malformed
from pot.zk.semantics.program import Name, Size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = ["AutoField", "AutoProgram", "AutoStep", "AutoTensor"]

START_BITS: Final = 6  # |w| < 64 at the start of a run, as `quantise/1` demands
STATE_BITS: Final = 44  # of a state's integers: a product of three stays far below the field's order

Shape = Annotated[list[Size], Field(max_length=8)]


class AutoTensor(Document):
    """One tensor of the state."""

    name: Name
    shape: Shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class AutoField(AutoTensor):
    """One field of the records, as in `pot.zk.semantics.program.Node`; the first axis is that of the records."""

    kind: Literal["unsigned", "signed", "marks"]
    bits: Annotated[int, Field(ge=0, le=24)]
    width: Annotated[int, Field(ge=1, le=24)]


class AutoProgram(Document):
    """One step. `label` is for people."""

    version: Literal["pot/auto-program/v1"]
    label: Annotated[str, StringConstraints(max_length=200)]
    batch: Annotated[int, Field(ge=1, le=4096)]
    max_steps: Annotated[int, Field(ge=1, le=1 << 20)]
    state: Annotated[list[AutoTensor], Field(min_length=1, max_length=1024)]
    fields: Annotated[list[AutoField], Field(min_length=1, max_length=64)]
    scale: Annotated[int, Field(ge=4, le=20)]
    """Fraction bits of every value that ezkl holds."""
    lookup_bits: Annotated[int, Field(ge=8, le=20)]
    """Tables of erf, exp and the like begin at -2^lookup_bits and end at 2^lookup_bits or later."""
    limb_bits: Annotated[int, Field(ge=6, le=16)]
    limbs: Annotated[int, Field(ge=1, le=4)]
    """What a rescale leaves must fit so many limbs."""
    onnx_sha256: Hex32

    @property
    def parameters(self) -> int:
        """Integers in a state."""
        return sum(tensor.size for tensor in self.state)

    def state_integers(self, state: Mapping[str, Ints], *, start: bool = False) -> list[int]:
        """A state's integers in order. Raises `Malformed` for another tensor, or one out of range."""
        limit = 1 << (self.scale + START_BITS if start else STATE_BITS)
        return [v for tensor in self.state for v in _integers(tensor, state, -limit + 1, limit - 1, "state")]

    def batch_integers(self, batch: Mapping[str, Ints]) -> list[int]:
        """A batch's integers in order, on the grid of `scale`. Raises `Malformed`."""
        found = []
        for field in self.fields:
            top = 1 if field.kind == "marks" else (1 << field.width) - 1
            low = -top - 1 if field.kind == "signed" else 0
            if field.bits > self.scale:
                raise Malformed(f"field {field.name}: {field.bits} fraction bits are more than the step's {self.scale}")
            shift = self.scale if field.kind == "marks" else self.scale - field.bits
            found += [value << shift for value in _integers(field, batch, low, top, "batch")]
        return found

    def batch_arrays(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Ints]:
        """int64 tensors by field, as of `pot.zk.semantics.batches.batch_arrays`. Raises `Malformed`."""
        from pot.zk.semantics.batches import field_tensors

        return field_tensors(self.batch, self.fields, records)

    def state_tensors(self, integers: Sequence[int]) -> dict[str, Ints]:
        """The tensors of a state's integers in order."""
        import numpy as np

        found, at = {}, 0
        for tensor in self.state:
            found[tensor.name] = np.array(integers[at : at + tensor.size], np.int64).reshape(tensor.shape)
            at += tensor.size
        return found


@dataclass(frozen=True)
class AutoStep:
    """A step's document and its graph."""

    program: AutoProgram
    onnx: bytes
    """Inputs `before`, `batch`, `blinds`, output `after`: float vectors."""


def _integers(tensor: AutoTensor, given: Mapping[str, Ints], low: int, high: int, what: str) -> list[int]:
    import numpy as np

    array = given.get(tensor.name)
    if not isinstance(array, np.ndarray) or array.dtype != np.int64 or list(array.shape) != tensor.shape:
        raise Malformed(f"{what}: {tensor.name} must be an int64 tensor of shape {tensor.shape}")
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        raise Malformed(f"{what}: {tensor.name} holds an integer outside {low}..{high}")
    values: list[int] = array.reshape(-1).tolist()
    return values
