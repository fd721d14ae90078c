"""A48, A49: an auditor who copies another's published result, and one who signs under two names.

Salted inner digests catch the copier: what it would have to know inside a segment is published nowhere. One machine
behind two names is a limit: nothing here tells it from two, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from several_auditors import inner_digests, policy_of, result_of, with_audits
from simulated_release import Simulation, failed, judge

from attest.verdict.report import Report
from attest.verdict.verify import verify
from pot.audit.salted import InnerDigests

Run = dict[str, Any]
Auditors = Callable[[Simulation, Run], list[tuple[str, Run]]]


def keep(simulation: Simulation, result: Run, document: InnerDigests | None = None, *, reveal: bool = True) -> Run:
    """The audit with the commitment to its document, which is revealed among the objects."""
    document = document if document is not None else inner_digests(simulation, result)
    if reveal:
        simulation.put(document.to_bytes())
    return {**result, "inner_commitment": document.commitment()}


def honest(simulation: Simulation, run: Run) -> list[tuple[str, Run]]:
    """Two auditors with draws of their own; with 3 of 4 segments each they meet."""
    return [(name, keep(simulation, result_of(run, name, detect="1"))) for name in ("Argus", "Bellerophon")]


def world(auditors: Auditors, *, independent: bool = True) -> Simulation:
    rules = {"audit": {"independent": True}} if independent else {}
    simulation = Simulation().bend("policy", lambda policy: policy_of(policy, **rules))
    simulation.bend("policy", lambda policy: policy["require"].pop() and None)
    with_audits(simulation, "parent", lambda run: auditors(simulation, run))
    return with_audits(simulation, "child", lambda run: honest(simulation, run))


def findings(report: Report, status: str) -> str:
    """About the parent; the child's auditors are honest."""
    found = [f for f in report.findings if f.code == "independent-audits" and f.status == status]
    return " ".join(finding.detail for finding in found if finding.subject.startswith("parent"))


def test_two_auditors_who_both_executed_it_agree() -> None:
    report = world(honest).verify()
    assert report.verdict == "PASS"
    assert "Argus and Bellerophon committed to the same states inside" in findings(report, "passed")
    assert "auditors-may-be-one" in {item.code for item in report.not_shown}


def test_one_auditor_is_not_two() -> None:
    """A49: the same identity, twice."""

    def twice(simulation: Simulation, run: Run) -> list[tuple[str, Run]]:
        return [("Argus", keep(simulation, result_of(run, nonce, detect="1"))) for nonce in ("one", "two")]

    report = world(twice).verify()
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert "no two auditors replayed a common segment" in findings(report, "not_checked")
    assert world(twice, independent=False).verify().verdict == "PASS"  # what the check adds


def copier(bend: Callable[[Simulation, Run, Run], Run]) -> Auditors:
    """Bellerophon executes nothing and signs what `bend` makes of its own draw and of Argus's published audit."""

    def auditors(simulation: Simulation, run: Run) -> list[tuple[str, Run]]:
        argus = keep(simulation, result_of(run, "Argus", detect="1"))
        return [("Argus", argus), ("Bellerophon", bend(simulation, result_of(run, "Bellerophon", detect="1"), argus))]

    return auditors


def says_match_without_a_commitment(simulation: Simulation, own: Run, argus: Run) -> Run:
    return own


def invents_the_inner_digests(simulation: Simulation, own: Run, argus: Run) -> Run:
    return keep(simulation, own, inner_digests(simulation, own, secret="public end states, hashed again"))


def takes_over_the_commitment(simulation: Simulation, own: Run, argus: Run) -> Run:
    return {**own, "inner_commitment": argus["inner_commitment"]}


def takes_over_the_whole_audit(simulation: Simulation, own: Run, argus: Run) -> Run:
    return {**argus, "isolation": "network"}


def commits_to_a_part(simulation: Simulation, own: Run, argus: Run) -> Run:
    """One segment executed, three signed."""
    return keep(simulation, own, inner_digests(simulation, own, leave_out=(1, 2)))


def never_reveals(simulation: Simulation, own: Run, argus: Run) -> Run:
    return keep(simulation, own, reveal=False)


def commits_to_another_challenge(simulation: Simulation, own: Run, argus: Run) -> Run:
    """The document of an honest audit, of another draw, signed once more."""
    return keep(simulation, own, inner_digests(simulation, argus))


def commits_to_no_document(simulation: Simulation, own: Run, argus: Run) -> Run:
    return {**own, "inner_commitment": simulation.put(b"no document")}


CAUGHT = {
    says_match_without_a_commitment: (
        "INCOMPLETE",
        "no two auditors replayed a common segment with an inner digest (Argus)",
    ),
    invents_the_inner_digests: ("DENY", "committed to different states after step"),
    takes_over_the_commitment: ("DENY", "signed the same commitment: one copied the other's"),
    takes_over_the_whole_audit: ("DENY", "signed the same commitment: one copied the other's"),
    commits_to_a_part: ("INCOMPLETE", "but did not commit to its state at step"),
    never_reveals: ("INCOMPLETE", "is missing from the release bundle"),
    commits_to_another_challenge: ("DENY", "belongs to another transcript or challenge"),
    commits_to_no_document: ("DENY", "not JSON"),
}


@pytest.mark.parametrize("bend", CAUGHT, ids=lambda bend: bend.__name__)
def test_a_copier_is_not_a_second_auditor(bend: Any) -> None:
    verdict, words = CAUGHT[bend]
    report = world(copier(bend)).verify()
    assert report.verdict == verdict
    assert words in findings(report, "failed" if verdict == "DENY" else "not_checked")
    without = world(copier(bend), independent=False).verify()
    assert without.verdict == "PASS"  # the signatures and the coverage are good: only this check sees it
    assert findings(without, "passed") == ""


@pytest.mark.parametrize("bend", CAUGHT, ids=lambda bend: bend.__name__)
@pytest.mark.parametrize("independent", [True, False])
def test_hiding_a_revealed_document_never_helps(bend: Any, independent: bool) -> None:
    simulation = world(copier(bend), independent=independent)
    release, policy = simulation.release(), simulation.policy()
    before = verify(release, policy, step_verifier=judge).verdict
    documents = [sha256 for sha256, data in release.objects.items() if b"pot/inner-digests/v1" in data]
    assert documents
    for sha256 in documents:
        objects = {name: data for name, data in release.objects.items() if name != sha256}
        after = verify(replace(release, objects=objects), policy, step_verifier=judge).verdict
        assert before == "PASS" or after != "PASS"


def test_a_third_who_contradicts_two_who_agree() -> None:
    def three(simulation: Simulation, run: Run) -> list[tuple[str, Run]]:
        third = result_of(run, "Cassandra", detect="1")
        other = keep(simulation, third, inner_digests(simulation, third, secret="other weights"))
        return [*honest(simulation, run), ("Cassandra", other)]

    simulation = world(three)
    assert simulation.verify().verdict == "DENY"
    release, policy = simulation.release(), simulation.policy()
    for sha256, data in release.objects.items():
        if b"pot/inner-digests/v1" in data:
            objects = {name: data for name, data in release.objects.items() if name != sha256}
            assert verify(replace(release, objects=objects), policy, step_verifier=judge).verdict != "PASS"


def test_an_object_that_nothing_refers_to_shows_nothing() -> None:
    """A document that no audit committed to, revealed afterwards."""

    def late(simulation: Simulation, run: Run) -> list[tuple[str, Run]]:
        results = [(name, result_of(run, name, detect="1")) for name in ("Argus", "Bellerophon")]
        for _, result in results:
            simulation.put(inner_digests(simulation, result).to_bytes())
        return results

    report = world(late).verify()
    assert report.verdict == "INCOMPLETE"
    assert findings(report, "passed") == findings(report, "failed") == ""
