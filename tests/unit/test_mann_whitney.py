"""Rank tests: against every division counted one by one, against tables, and where the approximation begins."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import combinations, product

import pytest

from pot.audit.statistics import mann_whitney
from pot.audit.statistics.mann_whitney import EXACT_WORK, Stratum, decimal, mid_scores, rank_test, roc, strata_by
from pot.errors import UsageError


def above(first: list[float], second: list[float]) -> int:
    """Twice U, by its definition."""
    return sum(2 * (a > b) + (a == b) for a in first for b in second)


def naive(strata: list[Stratum]) -> Fraction:
    """Every division of every stratum, one by one."""
    strata = [(list(first), list(second)) for first, second in strata if first and second]
    observed = sum(above(list(first), list(second)) for first, second in strata)
    choices = []
    for first, second in strata:
        values = [*first, *second]
        sums = []
        for chosen in combinations(range(len(values)), len(first)):
            ours = [values[at] for at in chosen]
            sums.append(above(ours, [values[at] for at in range(len(values)) if at not in chosen]))
        choices.append(sums)
    outcomes = [sum(parts) for parts in product(*choices)]
    return Fraction(sum(outcome >= observed for outcome in outcomes), len(outcomes))


@pytest.mark.parametrize("values", [2, 3, 5, 1000])
def test_the_counted_probability_is_that_of_all_divisions(values: int) -> None:
    rng = random.Random(values)
    for _ in range(150):
        strata = [
            (
                [rng.randrange(values) / 2 for _ in range(rng.randrange(5))],
                [rng.randrange(values) / 2 for _ in range(rng.randrange(5))],
            )
            for _ in range(rng.randrange(1, 4))
        ]
        found = rank_test(strata)
        if found.first:
            assert found.p == naive(strata), strata
            pairs = [pair for pair in strata if pair[0] and pair[1]]
            assert found.auc == Fraction(
                sum(above(*pair) for pair in pairs), 2 * sum(len(first) * len(second) for first, second in pairs)
            )
        else:
            assert (found.p, found.auc, found.second) == (1, Fraction(1, 2), 0)


def test_published_values() -> None:
    """The usual tables of U: for 8 and 8, P(U <= 13) = .025 and P(U <= 15) = .041; for 8 and 4, P(U <= 4) = .024."""
    for m, u, expected in ((8, 13, 0.025), (8, 15, 0.041), (4, 4, 0.024), (4, 0, 0.002)):
        numbers = list(range(8 + m))
        divisions = ((list(ours), [n for n in numbers if n not in ours]) for ours in combinations(numbers, 8))
        found = rank_test([next(pair for pair in divisions if above(*pair) == 2 * (8 * m - u))])
        assert round(float(found.p), 3) == expected


def test_two_hundred_numbers_are_still_counted() -> None:
    rng = random.Random(1)
    first, second = [rng.gauss(0.3, 1) for _ in range(100)], [rng.gauss(0, 1) for _ in range(100)]
    exact = rank_test([(first, second)])
    assert exact.method == "exact"
    approximate = rank_test([(first, second)], exact_work=0)
    assert approximate.method == "normal"
    assert float(approximate.p) == pytest.approx(float(exact.p), rel=0.05)


def test_two_hundred_numbers_are_counted_whatever_their_ties() -> None:
    """Half ranks double the sums that are possible; the groups of one size are the most divisions."""
    numbers = [0.0, 0.0, *map(float, range(1, 199))]
    ranked = mann_whitney._rank(numbers[::2], numbers[1::2])
    assert not mann_whitney._untied(mann_whitney._span(ranked)[0])
    assert mann_whitney._work([ranked]) <= EXACT_WORK
    found = rank_test([(numbers[:60:2], numbers[1:60:2])])
    assert found.method == "exact"
    assert float(found.p) == pytest.approx(
        float(rank_test([(numbers[:60:2], numbers[1:60:2])], exact_work=0).p), rel=0.02
    )


def test_thousands_of_numbers_are_approximated_and_say_so() -> None:
    rng = random.Random(2)
    first, second = [rng.gauss(0, 1) for _ in range(3000)], [rng.gauss(0, 1) for _ in range(3000)]
    found = rank_test([(first, second)])
    assert found.method == "normal"
    assert 0.001 < found.p < 0.999


def test_the_extreme_division_has_one_chance() -> None:
    found = rank_test([([3.0, 4.0, 5.0], [0.0, 1.0, 2.0]), ([9.0], [8.0])])
    assert (found.p, found.auc) == (Fraction(1, math.comb(6, 3) * 2), 1)
    assert rank_test([([1.0] * 5, [1.0] * 7)]).p == 1  # nothing but ties says nothing


def test_under_the_null_hypothesis_small_probabilities_are_as_rare_as_they_say() -> None:
    rng = random.Random(3)
    low = sum(rank_test([([rng.random() for _ in range(8)], [rng.random() for _ in range(8)])]).p <= Fraction(1, 10)
              for _ in range(2000))  # fmt: skip
    assert low <= 0.1 * 2000 + 3 * math.sqrt(2000 * 0.1 * 0.9)


def test_nan_has_no_rank() -> None:
    with pytest.raises(UsageError, match="NaN"):
        rank_test([([1.0, float("nan")], [0.0])])


def test_strata_hold_equal_keys_together() -> None:
    assert strata_by([0.0] * 100, 10) == [0.0, math.inf]  # nothing is below the first bound
    bounds = strata_by([float(n) for n in range(64)], 16)
    assert bounds == [16.0, 32.0, 48.0, math.inf]
    assert strata_by([1.0], 16) == [math.inf]


def test_scores_and_curve() -> None:
    first, second = mid_scores([([3.0, 4.0], [1.0, 2.0]), ([], [7.0])])
    assert (first, second) == ([0.6, 0.8], [0.2, 0.4])
    assert roc(first, second, 32) == [(0, 0), (0, 0.5), (0, 1), (0.5, 1), (1, 1)]
    rng = random.Random(4)
    curve = roc([rng.gauss(1, 1) for _ in range(300)], [rng.gauss(0, 1) for _ in range(300)], 32)
    assert len(curve) <= 32
    assert curve[0] == (0, 0)
    assert curve[-1] == (1, 1)
    assert curve == sorted(curve)
    assert roc([], [1.0], 32) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(0), "0"), (Fraction(1), "1"), (Fraction(1, 3), "0.333334"), (Fraction(1, 8), "0.125"),
        (Fraction(1, 3 * 10**12), "3.33334e-13"), (Fraction(1, 10**5), "1e-05"), (Fraction(1, 10**400), "1e-300"),
        (Fraction(999_999_999, 10**9), "1"),
    ],
)  # fmt: skip
def test_a_probability_is_rounded_up(value: Fraction, text: str) -> None:
    assert decimal(value) == text
    assert Fraction(text) >= value
