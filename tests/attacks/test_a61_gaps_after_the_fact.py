"""A61: most of a run made into one segment by gaps, so that draws which count segments hardly ever meet it.

Files of three quarters of the checkpoints "were lost". A draw is made over the segments that are left; the policy's
share of forged steps is in one of them.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from several_auditors import coverage_of
from simulated_release import Simulation, derive, failed

from attest.verdict import coverage
from attest.verdict.coverage import fewest_holding
from attest.verdict.report import Report
from pot.audit.challenges.challenge import new_challenge

STEPS, SHORT = 40, 5  # five segments of two steps, and one of thirty
LONG = str(SHORT + 1)


def gaps(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for event in events:
        if event["type"] == "checkpoint" and 2 * SHORT < int(event["step"]) < STEPS:
            found.append({"type": "gap", "step": event["step"], "missing": "state", "reason": "disk full"})
            event = {**event, "files": []}
        found.append(event)
    return found


def forged(share: str = "0.5", *, meets: bool = False) -> Simulation:
    """A draw over the six segments, for the policy's `detect` and this share; one that meets the long one, or not."""
    simulation = Simulation()
    simulation.steps["parent"] = STEPS

    def audits(results: list[dict[str, Any]]) -> None:
        result = results[0]
        run = (result["precommit_sha256"], result["transcript_sha256"])
        draws = (
            new_challenge(*run, SHORT + 1, forged=share, detect="0.8", nonce=derive("test/gaps", bytes([n])).hex())
            for n in range(100)
        )
        drawn = next(draw for draw in draws if (LONG in draw.chosen) == meets)
        result["challenge"] = drawn.model_dump(mode="json", exclude_none=True)
        result["replays"] = [{"unit_number": number, "outcome": "MATCH"} for number in drawn.chosen]

    def stated(predicate: dict[str, Any]) -> None:
        predicate["coverage"]["population"] = str(SHORT + 1)
        coverage_of(simulation, predicate)

    simulation.bend("parent.events", gaps).bend("parent.audits", audits).bend("parent.predicate", stated)
    return simulation.bend("policy", lambda policy: policy.pop("limits") and None)


def levels(report: Report) -> set[str]:
    return {claim.level for claim in report.claims if claim.type in ("training-provenance", "dataset-exclusion")}


@pytest.mark.parametrize("meets", [False, True])
def test_a_share_of_steps_in_one_segment_is_one_forged_segment(meets: bool) -> None:
    report = forged(meets=meets).verify()
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert levels(report) == {"committed"}
    assert "1 forged ones are caught with 33.33 %" in str(report.findings)


def test_counted_in_segments_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "fewest_holding", lambda lengths, share: ceil(share * len(lengths)))
    report = forged().verify()
    assert report.verdict == "PASS"
    assert levels(report) == {"audited"}


def test_a_draw_that_is_large_enough_for_one_segment_is_enough() -> None:
    assert forged("0.1", meets=True).verify().verdict == "PASS"


@pytest.mark.parametrize("share", ["0.01", "0.05", "0.1", "0.15", "0.5", "1"])
def test_segments_of_one_length_are_counted_as_before(share: str) -> None:
    for units in (1, 2, 7, 20, 101):
        assert fewest_holding([3] * units, Fraction(share)) == max(1, ceil(Fraction(share) * units))


def test_the_longest_come_first() -> None:
    assert fewest_holding([2, 2, 2, 2, 2, 30], Fraction(3, 4)) == 1
    assert fewest_holding([2, 2, 2, 2, 2, 30], Fraction(31, 40)) == 2
    assert fewest_holding([2, 2, 2, 2, 2, 30], Fraction(1)) == 6
    assert fewest_holding([5, 5, 1], Fraction(10, 11)) == 2
    assert fewest_holding([0, 0], Fraction(1, 2)) == fewest_holding([], Fraction(1, 2)) == 1
