"""A61: one segment as long as the run; and other ways to make a challenge mean nothing."""

from __future__ import annotations

from typing import Any

from simulated_release import Simulation, failed, unchecked

from pot.audit.challenges.challenge import new_challenge, prover_nonce


def test_segments_longer_than_the_policy_allows_are_denied() -> None:
    simulation = Simulation()
    simulation.every = 8
    for name in ("parent", "child"):
        simulation.bend(f"{name}.predicate", lambda predicate: predicate["coverage"].update(replayed="1"))
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert "segment-length" in failed(report)


def requirement(report: Any, claim: str) -> Any:
    return next(item for item in report.policy.requirements if item.claim == claim)


def drawn_by_the_prover(results: list[dict[str, Any]]) -> None:
    result = results[0]
    challenge = new_challenge(
        result["precommit_sha256"],
        result["transcript_sha256"],
        int(result["challenge"]["population"]),
        forged="0.5",
        detect="0.8",
        nonce_source="prover",
    )
    assert challenge.nonce == prover_nonce(result["transcript_sha256"])
    result["challenge"] = challenge.model_dump(mode="json", exclude_none=True)
    result["replays"] = [{"unit_number": number, "outcome": "MATCH"} for number in challenge.chosen]


def test_a_challenge_of_the_prover_covers_nothing() -> None:
    report = Simulation().bend("parent.audits", drawn_by_the_prover).verify()
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert requirement(report, "dataset-exclusion").found == "committed"


def test_a_challenge_that_leaves_out_the_bad_segment_is_denied() -> None:
    """A46: chosen units that the nonce does not give."""

    def other(results: list[dict[str, Any]]) -> None:
        challenge = results[0]["challenge"]
        chosen = ["1", "2"] if challenge["chosen"] != ["1", "2"] else ["1", "3"]
        challenge["chosen"] = chosen
        results[0]["replays"] = [{"unit_number": number, "outcome": "MATCH"} for number in chosen]

    report = Simulation().bend("parent.audits", other).verify()
    assert report.verdict == "DENY"
    assert "challenge" in failed(report)


def test_a_challenge_over_a_part_of_the_run_is_denied() -> None:
    def part(results: list[dict[str, Any]]) -> None:
        result = results[0]
        challenge = new_challenge(
            result["precommit_sha256"], result["transcript_sha256"], 2, forged="0.5", detect="0.8", nonce="ab" * 32
        )
        result["challenge"] = challenge.model_dump(mode="json", exclude_none=True)
        result["replays"] = [{"unit_number": number, "outcome": "MATCH"} for number in challenge.chosen]

    report = Simulation().bend("parent.audits", part).verify()
    assert report.verdict == "DENY"
    assert "challenge" in failed(report)


def test_a_lost_segment_is_not_a_match() -> None:
    """A47, A57: missing, inconclusive and timed-out replays count as neither."""
    for change in (
        lambda result: result["replays"].pop(),
        lambda result: result["replays"][0].update(outcome="INCONCLUSIVE"),
        lambda result: result["replays"][0].update(outcome="TIMEOUT"),
        lambda result: result["replays"][0].update(outcome="REFUSED"),
    ):

        def lose(results: list[dict[str, Any]], change: Any = change) -> None:
            change(results[0])

        def count(predicate: dict[str, Any]) -> None:
            predicate["coverage"]["replayed"] = "1"

        report = Simulation().bend("parent.audits", lose).bend("parent.predicate", count).verify()
        assert report.verdict == "INCOMPLETE"
        assert failed(report) == set()
        assert unchecked(report) == {"requirement"}


def test_a_mismatch_is_denied_whoever_drew_it() -> None:
    for first in (drawn_by_the_prover, lambda results: None):

        def mismatch(results: list[dict[str, Any]], first: Any = first) -> None:
            first(results)
            results[0]["replays"][0]["outcome"] = "MISMATCH"

        report = Simulation().bend("parent.audits", mismatch).verify()
        assert report.verdict == "DENY"
        assert "replay" in failed(report)


def test_a_mismatch_that_the_certificate_leaves_out_is_a_note() -> None:
    simulation = Simulation()
    honest = simulation._bent

    def also(stage: str, value: Any) -> Any:
        if stage == "parent.audits":
            bad = {**value[0], "replays": [{**value[0]["replays"][0], "outcome": "MISMATCH"}, *value[0]["replays"][1:]]}
            simulation.add_audit(bad)
        return honest(stage, value)

    simulation._bent = also  # type: ignore[method-assign]
    report = simulation.verify()
    assert report.verdict == "PASS"
    assert "unreferenced-audit" in {note.code for note in report.notes}


def test_coverage_that_the_evidence_does_not_give_is_denied() -> None:
    report = Simulation().bend("child.predicate", lambda p: p["coverage"].update(replayed="3")).verify()
    assert report.verdict == "DENY"
    assert "coverage" in failed(report)


def test_too_small_a_challenge_is_not_enough() -> None:
    report = Simulation().bend("policy", lambda p: p.update(coverage={"forged": "0.25", "detect": "0.99"})).verify()
    assert report.verdict == "INCOMPLETE"
    assert requirement(report, "dataset-exclusion").found == "committed"
    assert "replay-coverage" in requirement(report, "dataset-exclusion").detail


def test_an_audit_of_another_run_is_denied() -> None:
    def swap(predicate: dict[str, Any]) -> None:
        predicate["audits"] = simulation.models["parent"].audits

    simulation = Simulation().bend("child.predicate", swap)
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert "audit" in failed(report)


def test_roots_that_an_auditor_did_not_get_are_denied() -> None:
    def differ(results: list[dict[str, Any]]) -> None:
        results[0]["datasets_differ"] = results[0]["datasets"]
        results[0]["datasets"] = []

    report = Simulation().bend("parent.audits", differ).verify()
    assert report.verdict == "DENY"
    assert "records-tie" in failed(report)
