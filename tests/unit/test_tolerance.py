"""Distances over the update's norm, in every element type; the tolerance; the sign test and the drift's budget."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from pot.audit.replaying.tolerance import (
    CAP,
    Drift,
    Tolerance,
    decimal_text,
    judge_segment,
    relative_distance,
    sign_p_value,
    tolerance_document,
)
from pot.commitments.state import TensorEntry
from pot.errors import Malformed


def entry(values: list[float], dtype: str = "F32", name: str = "w") -> TensorEntry:
    array = np.array(values, dtype=np.float64)
    if dtype == "BF16":
        data = (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        data = array.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "U8": "<u1"}[dtype]).tobytes()
    return TensorEntry(name, dtype, (len(values),), data)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64", "I64"])
def test_the_distance_is_that_of_the_plain_formula(dtype: str) -> None:
    start, claimed, replayed = [0.0, 8.0, -4.0], [4.0, 8.0, -1.0], [4.0, 9.0, -1.0]
    found = relative_distance([entry(start, dtype)], [entry(claimed, dtype)], [entry(replayed, dtype)])
    assert found == pytest.approx(1 / 5)


def test_it_is_one_norm_over_all_tensors_and_their_order_does_not_matter() -> None:
    start = [entry([0.0], name="a"), entry([0.0] * 2, name="b")]
    claimed = [entry([3.0], name="a"), entry([0.0, 4.0], name="b")]
    replayed = [entry([0.0, 2.0], name="b"), entry([3.0], name="a")]
    assert relative_distance(start, claimed, replayed) == pytest.approx(2 / 5)


def test_slices_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    states = [[entry(list(rng.normal(size=101)))] for _ in range(3)]
    whole = relative_distance(*states)
    monkeypatch.setattr("pot.audit.replaying.tolerance._CHUNK", 7)
    assert relative_distance(*states) == pytest.approx(whole)


def test_eight_bit_floats_are_read() -> None:
    def bytes_of(codes: list[int], dtype: str) -> list[TensorEntry]:
        return [TensorEntry("w", dtype, (len(codes),), bytes(codes))]

    # E4M3: 0x38 = 1, 0x40 = 2, 0xB8 = -1, 0x01 = 2^-9; E5M2: 0x3C = 1, 0x40 = 2
    for dtype, one, two in (("F8_E4M3", 0x38, 0x40), ("F8_E5M2", 0x3C, 0x40)):
        found = relative_distance(bytes_of([0], dtype), bytes_of([two], dtype), bytes_of([one], dtype))
        assert found == pytest.approx(0.5)
    tiny = relative_distance(bytes_of([0], "F8_E4M3"), bytes_of([0xB8], "F8_E4M3"), bytes_of([0x01], "F8_E4M3"))
    assert tiny == pytest.approx(1 + 2**-9)
    assert relative_distance(bytes_of([0], "F8_E4M3"), bytes_of([0x38], "F8_E4M3"), bytes_of([0x7F], "F8_E4M3")) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_gives_no_distance(bad: float) -> None:
    good, other = [entry([1.0, 2.0])], [entry([1.0, bad])]
    zero = [entry([0.0, 0.0])]
    assert relative_distance(zero, good, other) is None
    assert relative_distance(zero, other, good) is None
    assert relative_distance(other, good, good) is None


def test_an_update_of_nothing_is_only_near_itself() -> None:
    here, there = [entry([1.0])], [entry([1.0 + 2**-20])]
    assert relative_distance(here, here, here) == 0.0
    assert relative_distance(here, here, there) is None


def test_other_tensors_have_no_distance_and_settings_are_not_numbers() -> None:
    here, there = [entry([1.0])], [entry([2.0])]
    assert relative_distance(here, there, [entry([2.0], name="v")]) is None
    assert relative_distance(here, there, [entry([2.0], "F64")]) is None
    assert relative_distance(here, there, [*there, entry([2.0], name="x")]) is None
    groups, longer = entry([1.0], "U8", "pot.groups"), entry([1.0, 2.0], "U8", "pot.groups")
    assert relative_distance([*here, groups], [*there, groups], [*there, longer]) == 0.0
    with pytest.raises(Malformed, match="not defined"):
        relative_distance(*[[TensorEntry("w", "F4", (2,), b"1")]] * 3)


def test_the_tolerance_is_ten_times_the_noise_and_capped() -> None:
    found = judge_segment(3, 9e-4, 1e-4, 1e-2)
    assert (found.tolerance, found.within, found.usable) == ("0.001", True, True)
    assert not judge_segment(3, 1.1e-3, 1e-4, 1e-2).within
    capped = judge_segment(3, 9e-3, 1.0, 9e-3)
    assert (float(capped.tolerance), capped.within, capped.usable) == (CAP, True, False)


def test_what_was_not_measured_is_neither_within_nor_usable() -> None:
    nothing = judge_segment(1, None, None, None)
    assert (nothing.distance, nothing.tolerance, nothing.within, nothing.usable) == (None, "0.0", False, False)
    assert not judge_segment(1, 0.0, 1e-9, None).usable
    assert judge_segment(1, 0.0, 0.0, 1e-3).usable  # an exact machine's tolerance is 0


def test_sign_p_value_is_the_exact_binomial() -> None:
    for signs in range(9):
        throws = [sum(throw) for throw in product((0, 1), repeat=signs)]
        for same in range(signs + 1):
            assert sign_p_value(same, signs) == Fraction(sum(heads >= same for heads in throws), 2**signs)


def _drift(pull: float, segments: int = 12) -> Tolerance:
    rng, drift = np.random.default_rng(5), Drift()
    for _ in range(segments):
        start, update = rng.normal(size=400), rng.normal(size=400)
        noise = rng.normal(size=400) * 1e-4
        states = [start, start + update, start + update + noise + pull * 1e-4]
        drift.add(*([entry(list(state), "F64")] for state in states), 1e-3)
    return tolerance_document("here", [], drift)


def test_honest_noise_turns_either_way() -> None:
    found = _drift(0.0)
    assert not found.flagged
    assert (found.signs, float(found.budget)) == ("11", pytest.approx(1e-3 * math.sqrt(12), rel=1e-2))
    assert float(found.drift) < float(found.budget)


def test_one_direction_is_flagged_although_every_segment_is_within() -> None:
    found = _drift(1.0)
    assert found.flagged
    assert (found.same, found.signs) == ("11", "11")
    assert float(found.sign_p) == pytest.approx(2**-11, rel=1e-2)


def test_a_drift_over_the_budget_is_flagged_by_two_segments() -> None:
    found = _drift(9.0, segments=3)
    assert int(found.signs) == 2  # too few for the sign test alone
    assert found.flagged
    assert float(found.drift) > float(found.budget)


def test_residuals_that_are_no_numbers_are_left_out() -> None:
    drift = Drift()
    good, bad = [entry([1.0])], [entry([math.nan])]
    drift.add([entry([0.0])], good, bad, 1.0)
    drift.add(good, good, good, 1.0)
    assert (drift.drift, drift.budget, drift.signs) == (0.0, 0.0, 0)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-9, 123456.0, 2.5e17, 1e22, 3.14159e-5])
def test_three_digits_are_a_decimal(value: float) -> None:
    text = decimal_text(value)
    assert float(text) == pytest.approx(value, rel=5e-3)
    assert judge_segment(1, value, 1.0, None).distance == text
