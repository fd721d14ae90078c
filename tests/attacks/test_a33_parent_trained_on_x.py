"""A33: the parent was trained on X, or nobody knows; the child claims that X is out."""

from __future__ import annotations

from typing import Any

from simulated_release import Simulation, failed, unchecked


def without_exclusion(predicate: dict[str, Any]) -> None:
    predicate["claims"] = [claim for claim in predicate["claims"] if claim["type"] != "dataset-exclusion"]


def test_a_parent_that_does_not_show_it_is_denied() -> None:
    report = Simulation().bend("parent.predicate", without_exclusion).verify()
    assert report.verdict == "DENY"
    assert failed(report) == {"lineage-claim", "requirement"}
    assert "parent makes no such claim" in report.reason


def test_a_parent_that_shows_it_for_another_set_is_denied() -> None:
    simulation = Simulation()
    other = Simulation()
    other.x1 = other.training["child"]  # any other set

    def other_set(predicate: dict[str, Any]) -> None:
        from simulated_release import commitment_of, exclusion_file

        training, digests = simulation.training["parent"]
        x2, asked = commitment_of("exclusion", [f"x2 {number}" for number in range(12)])
        claim = next(claim for claim in predicate["claims"] if claim["type"] == "dataset-exclusion")
        claim["exclusion_sha256"] = simulation.put(x2.to_bytes())
        claim["digests_sha256"] = simulation.put(asked)
        claim["proof_sha256"] = simulation.put(exclusion_file(training, digests, x2, asked))

    report = simulation.bend("parent.predicate", other_set).verify()
    assert report.verdict == "DENY"
    assert "lineage-claim" in failed(report)


def test_a_parent_without_certificate_is_incomplete() -> None:
    report = Simulation().bend("lines", lambda lines: lines[2:]).verify()  # the parent's audit and certificate
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert {"parent", "lineage-claim"} <= unchecked(report)
    assert [item.model for item in report.lineage] == ["child", None]


def test_a_parent_whose_proof_is_false_is_denied() -> None:
    simulation = Simulation()

    def lie(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim["type"] == "dataset-exclusion")
        claim["proof_sha256"] = simulation.put(simulation.objects[claim["proof_sha256"]][:-1] + b"\x00")

    report = simulation.bend("parent.predicate", lie).verify()
    assert report.verdict == "DENY"
    assert {"non-membership", "lineage-claim"} <= failed(report)
