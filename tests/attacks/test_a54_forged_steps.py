"""A54: steps that are almost right. Each forgery passes where its one check is left out of the circuit, else not.

The circuits are executed over the field (`step_attacks.Bench`); `test_zk_small_steps` shows that ezkl agrees, and
`test_a54_forged_step_proofs` proves one forgery of each kind with it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from forged_steps import (
    argmax_of_zeros,
    bent_batch,
    beyond_slack,
    fraction_of_quotient,
    fraction_of_slack,
    honest,
    leave_out,
    limb_beyond_its_end,
    mask_at_zero,
    masks_of_zeros,
    node,
    off_by_one,
    rounded_up,
    second_largest,
    two_steps_on,
)
from small_steps import LIMB_BITS, SmallStep, small_steps
from step_attacks import Bench, OutsideTable, Vectors, at, cancelling, changed

from pot.errors import Malformed, Refused
from pot.zk.circuits.field import MODULUS, inverse
from pot.zk.circuits.packing import batch_vectors, blinds_of, state_vectors
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.exact import RangeLeft, run

STEPS = {**small_steps(), "argmax of zeros": argmax_of_zeros()}
LIMB = 1 << LIMB_BITS


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Leaves one check out of every circuit that is built from then on."""

    return lambda check: leave_out(monkeypatch, check)


LOOKED_UP: dict[str, tuple[str, Callable[[SmallStep], Vectors]]] = {
    "a rounding one too large": ("round to one limb", rounded_up),
    "a quotient one too large": ("divide to one limb", off_by_one("divide", 1)),
    "a quotient one too small": ("divide to one limb", off_by_one("divide", -1)),
    "a root one too large": ("root of one limb", off_by_one("sqrt", 1)),
    "a root one too small": ("root of one limb", off_by_one("sqrt", -1)),
    "an inverse root one too large": ("inverse root of one limb", off_by_one("rsqrt", 1)),
    "an inverse root one too small": ("inverse root of one limb", off_by_one("rsqrt", -1)),
    "the later of two largest values": ("argmax of ties", second_largest),
    "the later of two values at exactly 0": ("argmax of zeros", second_largest),
    "a next state beyond the slack": ("float training", beyond_slack),
    "a next state between two integers": ("float training", fraction_of_slack),
}


@pytest.mark.parametrize("name", LOOKED_UP)
def test_a54_only_the_table_stops(name: str, without: Callable[[str], None]) -> None:
    step_name, forge = LOOKED_UP[name]
    step = STEPS[step_name]
    forged = forge(step)
    assert not Bench.of(step.program).accepts(forged)
    without("lookups")
    assert Bench.of(step.program).accepts(forged)


def test_a54_a_quotient_that_is_a_fraction(without: Callable[[str], None]) -> None:
    """Its own lookup, which nothing reads, says that a quotient is an integer."""
    step = STEPS["round to one limb"]
    forged = fraction_of_quotient(step)
    assert not Bench.of(step.program).accepts(forged)
    without("kept")
    assert Bench.of(step.program).accepts(forged)


BATCHES: dict[str, tuple[str, dict[int, int]]] = {
    "a feature beyond its range": ("unsigned batch", {0: 32}),
    "a feature below zero": ("unsigned batch", {0: -1}),
    "half a feature": ("unsigned batch", {0: inverse(2)}),
    "a feature beyond a signed range": ("linear", {0: 32}),
    "a quarter of a signed feature": ("linear", {0: inverse(4)}),
    "two marks": ("marks", {0: 1, 1: 1}),
    "no mark": ("marks", {0: 0, 1: 0, 2: 0}),
    "marks that add up to one": ("marks", {0: 2, 1: -1, 2: 0}),
    "half a mark twice": ("marks", {0: inverse(2), 1: inverse(2), 2: 0}),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a54_a_batch_that_no_records_make(name: str, without: Callable[[str], None]) -> None:
    """The rest of the step follows from the wrong batch; only the batch's own range speaks against it."""
    step_name, elements = BATCHES[name]
    step = STEPS[step_name]
    bench, _ = honest(step)
    forged = bent_batch(elements)(step)
    without("range")
    assert Bench.of(step.program).accepts(forged)
    assert not bench.accepts(forged)


def test_a54_another_next_state(without: Callable[[str], None]) -> None:
    step = STEPS["two tensors of state"]
    bench, vectors = honest(step)
    skipped = two_steps_on(step)
    other = {"x": step.batch["x"][::-1].copy()}
    swapped = {**vectors, "batch.0": batch_vectors(
        step.program, bench.parts.layout, other, blinds_of(bench.parts.layout, bytes(32), "batch", 1)
    )[0]}  # fmt: skip
    assert not bench.accepts(skipped)
    assert not bench.accepts(swapped)
    without("next")
    assert Bench.of(step.program).accepts(skipped)
    assert Bench.of(step.program).accepts(swapped)


def test_a54_limbs_that_hold_more_than_a_limb(monkeypatch: pytest.MonkeyPatch) -> None:
    """ezkl fills its tables to the end of the column; a table that ended later would take r = 2^s."""
    step = STEPS["round to one limb by a whole limb"]
    bench, forged = Bench.of(step.program), limb_beyond_its_end(step)
    with pytest.raises(OutsideTable):
        bench.residuals(forged)
    low, top = bench.table
    assert top == LIMB - 1
    monkeypatch.setattr(Bench, "table", (low, 2 * LIMB))
    assert Bench.of(step.program).accepts(forged)


def test_a54_a_limb_below_zero_counts_as_zero() -> None:
    """One meaning has many vectors, but one vector has one meaning."""
    step = STEPS["round to one limb by a whole limb"]
    bench, vectors = honest(step)
    index = node(step, "round")
    zero = next(p for p in bench.places("witness") if p.node == index and p.tag == "r.0")
    assert bench.accepts(changed(vectors, (zero, at(vectors, zero) or -5)))
    for value in (-1, -5, bench.table[0]):
        bent = changed(vectors, (zero, value))
        assert bench.accepts(bent) == (at(vectors, zero) == 0) == bench.right(bent)


def test_a54_a_mask_at_zero_is_zero(without: Callable[[str], None]) -> None:
    step = masks_of_zeros()
    forged = mask_at_zero(step)
    assert not Bench.of(step.program).accepts(forged)
    without("lookups")
    assert Bench.of(step.program).accepts(forged)


def test_a54_weights_that_wrap_around_the_field_prove_a_step_that_is_none() -> None:
    """What a step proof alone does not show: only an opened start, and induction from it, keeps states in range."""
    step = STEPS["two tensors of state"]
    bench, vectors = honest(step)
    before = bench.place("before", step.program.states[0])
    after = bench.place("after", step.program.states[0])
    huge = MODULUS // 2
    wrapped = changed(vectors, (before, at(vectors, before) + huge), (after, at(vectors, after) + huge))
    assert bench.accepts(wrapped)
    with pytest.raises(OverflowError):
        bench.integers(wrapped, "before")
    beyond = {**step.state, "w": step.state["w"] + (1 << 13)}
    with pytest.raises(RangeLeft):
        state_vectors(step.program, bench.parts.layout, beyond, blinds_of(bench.parts.layout, bytes(32), "state", 0))
    start = {**step.state, "w": step.state["w"] + (1 << 12)}  # a later state may be here, a first one may not
    blinds = blinds_of(bench.parts.layout, bytes(32), "state", 0)
    state_vectors(step.program, bench.parts.layout, start, blinds)
    with pytest.raises(RangeLeft):
        state_vectors(step.program, bench.parts.layout, start, blinds, start=True)


def test_a54_a_state_that_could_reach_the_fields_end_has_no_circuit() -> None:
    """Bounds are checked when a circuit is made: this one multiplies its weights by 2^40 in each of 2^16 steps."""
    b = Builder(limb_bits=LIMB_BITS)
    w = b.state("w", [1, 2], bits=4, width=10)
    x = b.batch("x", [1, 2], kind="unsigned", bits=4, width=5)
    b.set_next(w, b.add(w, b.scaled(b.mul(w, x), -4)))
    with pytest.raises(Malformed, match="grow without end"):
        Bench.of(b.program(label="growing", batch=1, max_steps=1 << 16))


def test_a54_who_knows_the_challenge_forges_any_next_state() -> None:
    """Two wrong elements cancel under a known challenge; under the one that follows from the points they do not."""
    step = STEPS["two tensors of state"]
    bench, vectors = honest(step)
    known = bench.challenge(vectors)
    forged = cancelling(bench, vectors, known)
    assert bench.accepts(forged, known)
    assert not bench.accepts(forged)


def test_a54_both_ends_of_every_range() -> None:
    """The circuit and the integer reference allow the same integers, to the last one."""
    for name, least, most in (("linear", -32, 31), ("unsigned batch", 0, 31)):
        step = STEPS[name]
        for value in (least - 1, least, most, most + 1):
            inside = least <= value <= most
            bench, vectors = honest(step)
            batch = {"x": step.batch["x"].copy()}
            batch["x"][0, 0] = value
            if inside:
                assert bench.accepts(bench.honest(step.state, batch))
                continue
            with pytest.raises(Malformed):
                run(step.program, step.state, batch)
            assert not bench.accepts(changed(vectors, (bench.place("batch", step.program.batches[0]), value)))
    step = STEPS["float training"]
    exact = run(step.program, step.state, step.batch, after=None).values[step.program.next[0].value]
    for distance, inside in ((-9, False), (-8, True), (7, True), (8, False)):
        after = {"w": exact + np.array([[distance, 0, 0], [0, 0, 0]])}
        if inside:
            bench = Bench.of(step.program)
            assert bench.accepts(bench.honest(step.state, step.batch, after))
        else:
            with pytest.raises(Refused, match="away from the exact step"):
                run(step.program, step.state, step.batch, after=after)
