"""Challenges: exact arithmetic, and what a challenge document may say."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from private_beacon import PrivateBeacon

from pot.audit.challenges.challenge import (
    MAX_POPULATION,
    Challenge,
    choose,
    detection,
    detection_after_grinding,
    forged_count,
    fraction,
    new_challenge,
    sample_size,
)
from pot.errors import Malformed, UsageError

RUN = "aa" * 32
TRANSCRIPT = "bb" * 32


def test_detection_equals_the_textbook_over_all_small_populations() -> None:
    for population in range(1, 10):
        for bad in range(population + 1):
            for sample in range(population + 1):
                expected = 1 - Fraction(comb(population - bad, sample), comb(population, sample))
                assert detection(population, bad, sample) == expected


@pytest.mark.parametrize(("population", "sample"), [(1000, 368), (10_000, 448), (1_000_000, 459), (20, 20), (1, 1)])
def test_one_percent_forged_met_with_99_percent(population: int, sample: int) -> None:
    assert sample_size(population, "0.01", "0.99") == sample


@given(st.integers(1, 400), st.sampled_from(["0.01", "0.1", "0.5", "1"]), st.sampled_from(["0.5", "0.99", "1"]))
def test_the_sample_is_the_smallest_that_suffices(population: int, forged: str, detect: str) -> None:
    bad = forged_count(population, fraction(forged, "forged"))
    size = sample_size(population, forged, detect)
    assert detection(population, bad, size) >= Fraction(detect)
    assert detection(population, bad, size - 1) < Fraction(detect)


@pytest.mark.parametrize("text", ["0", "-0.1", "1.1", "nan", "inf", "1/2", "", "0.5 0", "1_0", "x" * 50])
def test_fractions_outside_the_unit_interval_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        fraction(text, "forged")


@pytest.mark.parametrize("population", [0, -1, MAX_POPULATION + 1])
def test_impossible_populations_are_refused(population: int) -> None:
    with pytest.raises(UsageError):
        new_challenge(RUN, TRANSCRIPT, population)


def test_the_choice_depends_on_transcript_unit_and_nonce() -> None:
    first = choose(TRANSCRIPT, "segment", "01" * 32, 1000, 10)
    assert first == tuple(sorted(set(first), key=int))
    assert all(1 <= int(unit) <= 1000 for unit in first)
    others = {
        choose(RUN, "segment", "01" * 32, 1000, 10),
        choose(TRANSCRIPT, "step", "01" * 32, 1000, 10),
        choose(TRANSCRIPT, "segment", "02" * 32, 1000, 10),
    }
    assert len(others | {first}) == 4


def test_a_challenge_reads_back_and_two_challenges_differ() -> None:
    one, other = (new_challenge(RUN, TRANSCRIPT, 1000, forged="0.05") for _ in range(2))
    assert Challenge.from_bytes(one.to_bytes(), what="challenge") == one
    assert one.nonce != other.nonce
    assert one.chosen != other.chosen


@pytest.mark.parametrize("nonce", ["", "zz" * 32, "AB" * 32, "00" * 31])
def test_a_nonce_that_is_no_digest_is_refused(nonce: str) -> None:
    with pytest.raises(Malformed, match="nonce"):
        new_challenge(RUN, TRANSCRIPT, 10, nonce=nonce)


@given(st.integers(1, 60), st.integers(1, 6), st.data())
def test_grinding_is_the_power_of_a_single_draw(population: int, tries: int, data: st.DataObject) -> None:
    bad, sample = (data.draw(st.integers(0, population)) for _ in range(2))
    once, ground = detection(population, bad, sample), detection_after_grinding(population, bad, sample, tries)
    exact = once**tries
    assert 0 <= exact - ground < Fraction(1, 1 << 500)
    assert ground == exact or once not in (0, 1)


def test_a_prover_who_tries_a_million_times_escapes() -> None:
    """One forged segment of a hundred, ten replayed: a single draw meets it with 1/10."""
    assert detection_after_grinding(100, 1, 10, 1) <= Fraction(1, 10)
    assert detection_after_grinding(100, 1, 10, 1 << 20) == 0
    # one miss in ten million becomes one in ten; a draw that cannot miss keeps its worth
    assert detection(10**6, 1000, 16_000) > 1 - Fraction(2, 10**7)
    assert Fraction(85, 100) < detection_after_grinding(10**6, 1000, 16_000, 1 << 20) < Fraction(95, 100)
    assert detection_after_grinding(100, 1, 100, 1 << 60) == 1
    with pytest.raises(UsageError, match="at least one is made"):
        detection_after_grinding(100, 1, 10, 0)


def test_the_nonce_has_one_source() -> None:
    beacon = PrivateBeacon().sign(7)
    drawn = new_challenge(RUN, TRANSCRIPT, 10, nonce_source="beacon", beacon=beacon)
    assert (drawn.nonce, drawn.beacon) == (beacon.randomness, beacon)
    assert Challenge.from_bytes(drawn.to_bytes(), what="challenge") == drawn
    with pytest.raises(UsageError, match="is the round's randomness"):
        new_challenge(RUN, TRANSCRIPT, 10, nonce_source="beacon", beacon=beacon, nonce="00" * 32)
    for options in ({"nonce_source": "beacon"}, {"beacon": beacon}, {"nonce_source": "prover", "beacon": beacon}):
        with pytest.raises(UsageError, match="is needed for the nonce source beacon"):
            new_challenge(RUN, TRANSCRIPT, 10, **options)


def test_a_prover_cannot_bring_a_nonce() -> None:
    with pytest.raises(UsageError, match="cannot be given"):
        new_challenge(RUN, TRANSCRIPT, 10, nonce="00" * 32, nonce_source="prover")
