"""A54 with ezkl's own proofs: each forgery verifies under a circuit that lacks its one check, and under ours not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ezkl")

from forged_steps import (
    argmax_of_zeros,
    bent_batch,
    fraction_of_quotient,
    fraction_of_slack,
    honest,
    leave_out,
    mask_at_zero,
    masks_of_zeros,
    rounded_up,
    second_largest,
    two_steps_on,
    wrapped_weight,
)
from real_steps import RealBench
from small_steps import SmallStep, small_steps
from step_attacks import SECRET, Bench, Vectors, at

from pot.errors import Malformed
from pot.zk.circuits.field import MODULUS
from pot.zk.circuits.packing import blinds_of, state_vectors
from pot.zk.semantics import exact

STEPS = {**small_steps(), "argmax of zeros": argmax_of_zeros(), "masks of zeros": masks_of_zeros()}

FORGERIES: dict[str, tuple[str, str, Callable[[SmallStep], Vectors]]] = {
    "a rounding one too large": ("lookups", "round to one limb", rounded_up),
    "a mask of 1 at exactly 0": ("lookups", "masks of zeros", mask_at_zero),
    "the later of two largest values, both 0": ("lookups", "argmax of zeros", second_largest),
    "a next state between two integers": ("lookups", "float training", fraction_of_slack),
    "a quotient that is a fraction": ("kept", "round to one limb", fraction_of_quotient),
    "a feature beyond its range": ("range", "unsigned batch", bent_batch({0: 32})),
    "the state after the next": ("next", "two tensors of state", two_steps_on),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a54_a_forgery_is_proven_only_where_its_check_is_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check, step_name, forge = FORGERIES[name]
    step = STEPS[step_name]
    bench, vectors = honest(step)
    right, forged = RealBench.of(bench), forge(step)
    leave_out(monkeypatch, check)
    blind = RealBench.of(Bench.of(step.program))
    assert blind.verifying_key != right.verifying_key
    assert blind.proves(forged)
    assert right.proves(vectors)
    assert not right.proves(forged)


def test_a54_wrapped_weights_are_proven_and_open_to_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight of 254 bits makes any activation right; that a start is opened, in range, is all that speaks against it.

    The integers behind a point are known up to the field's order, so every range must be smaller than it by far.
    """
    step = STEPS["round to one limb"]
    bench, vectors = honest(step)
    forged = wrapped_weight(step)
    assert RealBench.of(bench).proves(forged)
    blinds = blinds_of(bench.parts.layout, SECRET, "state", 0)
    place = next(p for p in bench.places("before") if forged[p.vector][p.offset] != vectors[p.vector][p.offset])
    wrapped = (forged[place.vector][place.offset] - place.base) % MODULUS
    assert min(wrapped, MODULUS - wrapped) > 1 << 200

    def opened(weight: int) -> Vectors:
        w = step.state["w"].astype(object)
        w.reshape(-1)[place.element] = weight
        state: Any = {**step.state, "w": w}
        return {"before.0": state_vectors(step.program, bench.parts.layout, state, blinds, start=True)[0]}

    right = at(vectors, place)
    for weight in (wrapped, wrapped - MODULUS, right + MODULUS, right - 3 * MODULUS):
        with pytest.raises(Malformed, match="int64"):
            opened(weight)
    narrow = {**step.state, "w": np.where(np.arange(6).reshape(2, 3) == 0, 1 << 6, step.state["w"])}
    with pytest.raises(exact.RangeLeft):
        state_vectors(step.program, bench.parts.layout, narrow, blinds, start=True)
    monkeypatch.setattr(exact, "check_state", lambda *_, **__: None)
    for weight, known in ((wrapped, forged), (wrapped - MODULUS, forged), (right + MODULUS, vectors)):
        assert opened(weight)["before.0"] == known["before.0"]
