"""Vectors: where integers stand in them, what blinds them, and which integers have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_steps import small_steps

from pot.errors import Malformed
from pot.zk.circuits.field import ELEMENT_BYTES, MODULUS, encode, inverse
from pot.zk.circuits.layout import RESERVED, Layout, lay_out
from pot.zk.circuits.packing import batch_vectors, blinds_of, state_vectors, witness_vectors
from pot.zk.circuits.witness import wanted, witness_values
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.exact import RangeLeft, run
from pot.zk.semantics.program import Program

SECRET = bytes(range(32))
STEP = small_steps()["two tensors of state"]


def wide_program() -> Program:
    """Tensors of 300, 500 and 120 integers in columns of 2^9."""
    b = Builder(limb_bits=8)
    x = b.batch("x", [2, 60], kind="unsigned", bits=0, width=3)
    for name, size in (("a", 300), ("b", 500)):
        state = b.state(name, [size], bits=0, width=6)
        b.set_next(state, state)
    b.set_next(b.state("c", [120], bits=0, width=6), b.round(b.shift(b.reshape(x, [120]), 3), 0, limbs=1))
    return b.program(label="wide", batch=2, max_steps=2)


def read_back(layout: Layout, family: Any, vectors: list[list[int]]) -> dict[tuple[int, str], list[int]]:
    found: dict[tuple[int, str], list[int]] = {}
    for (known, node, tag), pieces in layout.pieces.items():
        if known == family:
            found[node, tag] = [
                value for p in pieces for value in vectors[p.vector][p.offset : p.offset + p.size]
            ]  # fmt: skip
    return found


def test_tensors_cross_vectors_and_no_element_is_lost_or_shared() -> None:
    program = wide_program()
    layout = lay_out(program, 9, 8)
    room = 512 - RESERVED - 8
    assert layout.lengths["state"] == [room, 920 - room]
    assert layout.names() == ["before.0", "before.1", "after.0", "after.1", "batch.0", "witness.0"]
    places = [
        (p.vector, p.offset + element)
        for (family, _, _), pieces in layout.pieces.items() if family == "state" for p in pieces
        for element in range(p.size)
    ]  # fmt: skip
    assert len(places) == len(set(places)) == 920
    state = {"a": np.arange(300) % 60, "b": -(np.arange(500) % 50), "c": np.arange(120) % 64}
    blinds = blinds_of(layout, SECRET, "state", 3)
    vectors = state_vectors(program, layout, state, blinds)
    assert [len(vector) for vector in vectors] == [layout.length("before.0"), layout.length("after.1")]
    back = read_back(layout, "state", vectors)
    for index in program.states:
        assert back[index, ""] == [int(value) + (2 << 6) for value in state[str(program.nodes[index].name)]]
    assert [vector[-8:] for vector in vectors] == blinds


def test_a_witness_limb_never_crosses_vectors_it_could_stay_within() -> None:
    program = wide_program()
    for pieces in (pieces for (family, _, _), pieces in lay_out(program, 9, 8).pieces.items() if family == "witness"):
        assert len(pieces) == 1


def test_a_family_without_tensors_has_no_vector() -> None:
    b = Builder(limb_bits=8)
    w = b.state("w", [2], bits=0, width=6)
    b.batch("x", [2, 1], kind="unsigned", bits=0, width=3)
    b.set_next(w, w)
    layout = lay_out(b.program(label="still", batch=2, max_steps=2), 9, 8)
    assert layout.names() == ["before.0", "after.0", "batch.0"]


def test_blinds_differ_wherever_one_is_used() -> None:
    """An element of a vector is hidden by them; two vectors with one blind would tell their difference."""
    layout = lay_out(wide_program(), 9, 8)
    seen = [
        element
        for secret in (SECRET, bytes(32)) for label in ("state", "batch", "witness") for step in (0, 1, 2**63)
        for vector in blinds_of(layout, secret, label, step) for element in vector  # type: ignore[arg-type]
    ]  # fmt: skip
    assert len(set(seen)) == len(seen) == 2 * 3 * (2 + 1 + 1) * 8
    assert all(0 <= element < MODULUS for element in seen)
    assert blinds_of(layout, SECRET, "state", 5) == blinds_of(layout, SECRET, "state", 5)


@pytest.mark.parametrize(
    ("secret", "step"), [(b"", 1), (bytes(31), 1), (bytes(33), 1), (SECRET, -1), (SECRET, 1 << 64)]
)
def test_blinds_want_a_secret_and_a_step(secret: bytes, step: int) -> None:
    with pytest.raises(Malformed, match="blinds"):
        blinds_of(lay_out(wide_program(), 9, 8), secret, "state", step)


def test_another_number_of_blinds_is_refused() -> None:
    layout = lay_out(STEP.program, 9, 8)
    blinds = blinds_of(layout, SECRET, "state", 0)
    for wrong in ([], [blinds[0][:-1]], [*blinds, blinds[0]]):
        with pytest.raises(Malformed, match="blinds are needed"):
            state_vectors(STEP.program, layout, STEP.state, wrong)


def test_integers_out_of_range_have_no_vector() -> None:
    program, layout = STEP.program, lay_out(STEP.program, 9, 8)
    state, batch = blinds_of(layout, SECRET, "state", 0), blinds_of(layout, SECRET, "batch", 1)
    width = program.nodes[program.states[0]].width or 0
    inside = {**STEP.state, "w": STEP.state["w"] * 0 + (1 << width)}
    state_vectors(program, layout, inside, state)
    with pytest.raises(RangeLeft):
        state_vectors(program, layout, inside, state, start=True)
    with pytest.raises(RangeLeft):
        state_vectors(program, layout, {**STEP.state, "w": STEP.state["w"] * 0 + (2 << width)}, state)
    for value in (-1, 32):
        with pytest.raises(Malformed):
            batch_vectors(program, layout, {"x": STEP.batch["x"] * 0 + value}, batch)


@pytest.mark.parametrize("name", small_steps())
def test_a_witness_has_every_tensor_that_is_wanted_within_the_table(name: str) -> None:
    step = small_steps()[name]
    found = run(step.program, step.state, step.batch, after=step.after)
    values = witness_values(step.program, found)
    items = wanted(step.program)
    assert {(item.node, item.tag) for item in items} == set(values)
    top = (1 << step.program.limb_bits) - 1
    for item in items:
        assert len(values[item.node, item.tag]) == item.size
        low = -step.program.limb_limit if item.signed else 0
        assert all(low <= value <= top for value in values[item.node, item.tag])
    layout = lay_out(step.program, 9, 8)
    vectors = witness_vectors(step.program, layout, found, blinds_of(layout, SECRET, "witness", 1))
    assert read_back(layout, "witness", vectors) == {
        key: [value % MODULUS for value in flat] for key, flat in values.items()
    }  # fmt: skip


def test_a_field_element_is_32_little_endian_bytes() -> None:
    assert encode([1, MODULUS - 1])[:ELEMENT_BYTES] == b"\1" + bytes(31)
    assert len(encode([0] * 5)) == 160
    assert inverse(8) * 8 % MODULUS == 1
