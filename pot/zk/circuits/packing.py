"""From integers to the vectors that KZG points commit to, each with blinds at its end.

Implements `specs/step-proof.md`, section "Vectors". Pure Python integers reduced modulo the field.

Shows: nothing alone. The range check before packing is the base of the argument that nothing wraps around the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from pot.canonical import derive
from pot.errors import Malformed
from pot.zk.circuits.field import MODULUS, Vector
from pot.zk.circuits.layout import Family, Layout, state_offset
from pot.zk.circuits.witness import wanted, witness_values
from pot.zk.semantics.program import Program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.semantics.exact import Run

    Ints = NDArray[np.int64]

__all__ = ["SECRET_BYTES", "Blinds", "batch_vectors", "blinds_of", "state_vectors", "witness_vectors"]

SECRET_BYTES: Final = 32
BLIND_CONTEXT: Final = "pot/zk-blind/v2"
Label = Literal["state", "batch", "witness"]
Blinds = list[Vector]
"""The blinding elements of each vector of a family."""


def blinds_of(layout: Layout, secret: bytes, label: Label, step: int) -> Blinds:
    """The blinds of the vectors of one state, batch or witness, from the run's 32-byte secret.

    Two 32-byte derivations an element, reduced: the bias is below 2^-250. The state after step t has step = t.
    """
    if len(secret) != SECRET_BYTES or not 0 <= step < 1 << 64:
        raise Malformed(f"blinds: a secret of {SECRET_BYTES} bytes and a step number are needed")
    parts = (secret, label.encode(), step.to_bytes(8, "little"))
    found = []
    for number in range(len(layout.lengths[label])):
        place = number.to_bytes(4, "little")
        found.append([_element(parts, place + bytes([index])) for index in range(layout.blinds)])
    return found


def _element(parts: tuple[bytes, ...], place: bytes) -> int:
    wide = b"".join(derive(BLIND_CONTEXT, *parts, place + bytes([half])) for half in (0, 1))
    return int.from_bytes(wide, "little") % MODULUS


def state_vectors(
    program: Program, layout: Layout, state: Mapping[str, Ints], blinds: Blinds, *, start: bool = False
) -> list[Vector]:
    """The vectors of a state. `start` demands the range in which a run begins. Raises `Malformed`, `RangeLeft`."""
    from pot.zk.semantics.exact import check_state

    check_state(program, state, start=start)
    tensors = {
        (index, ""): _flat(state[program.nodes[index].name or ""] + state_offset(program, index))
        for index in program.states
    }
    return _pack(layout, "state", tensors, blinds)


def batch_vectors(program: Program, layout: Layout, batch: Mapping[str, Ints], blinds: Blinds) -> list[Vector]:
    """The vectors of a batch. Raises `Malformed`."""
    from pot.zk.semantics.exact import check_batch

    check_batch(program, batch)
    tensors = {(index, ""): _flat(batch[program.nodes[index].name or ""]) for index in program.batches}
    return _pack(layout, "batch", tensors, blinds)


def witness_vectors(program: Program, layout: Layout, run: Run, blinds: Blinds) -> list[Vector]:
    """The vectors of a step's witness. Raises `Malformed` for a limb outside the table, which would hang the prover."""
    values = witness_values(program, run)
    low, top = -program.limb_limit, (1 << program.limb_bits) - 1
    for item in wanted(program):
        found = values[item.node, item.tag]
        if found and (min(found) < (low if item.signed else 0) or max(found) > top):
            raise Malformed(f"witness: {item.tag} of node {item.node} lies outside the table")
    return _pack(layout, "witness", values, blinds)


def _pack(
    layout: Layout, family: Family, tensors: Mapping[tuple[int, str], Sequence[int]], blinds: Blinds
) -> list[Vector]:
    lengths = layout.lengths[family]
    if len(blinds) != len(lengths) or any(len(blind) != layout.blinds for blind in blinds):
        raise Malformed(f"{family}: {len(lengths)} times {layout.blinds} blinds are needed")
    vectors: list[Vector] = [[0] * length for length in lengths]
    for (known, node, tag), pieces in layout.pieces.items():
        if known != family:
            continue
        values = tensors[node, tag]
        for piece in pieces:
            part = values[piece.start : piece.start + piece.size]
            vectors[piece.vector][piece.offset : piece.offset + piece.size] = [value % MODULUS for value in part]
    return [vector + list(blind) for vector, blind in zip(vectors, blinds, strict=True)]


def _flat(array: Ints) -> list[int]:
    values: list[int] = array.reshape(-1).tolist()
    return values
