"""A31 in a certificate: a data audit that counts for nothing, or says no, behind a claim that needs one.

What an auditor's word is worth is the policy's matter; each audit here would count if it were by an accepted auditor,
about this data, and said MATCH.
"""

from __future__ import annotations

from typing import Any

import pytest
from simulated_data import claim_of, data_audit, see_through
from simulated_release import Simulation, commitment_of, failed, key, sign

from attest.predicate import DATA_AUDIT
from attest.verdict import data_ties
from pot.canonical import canonical_bytes, sha256_hex


def unaudited() -> Simulation:
    """The release bundle whose auditor of the run did not recompute the roots."""
    simulation = Simulation()
    for name in ("parent", "child"):
        simulation.bend(f"{name}.audits", lambda results: [result.update(datasets=[]) for result in results] and None)
    return simulation


def with_audits(signer: str = "auditor", **changed: Any) -> Simulation:
    """The same with data audits of both models' data by `signer`."""
    simulation = unaudited()

    def refer(name: str) -> Any:
        def change(predicate: dict[str, Any]) -> None:
            result = {**data_audit(simulation.training[name][0], "digests"), **changed}
            predicate["audits"] = [*predicate["audits"], simulation.add_data_audit(result, signer)]

        return change

    for name in ("parent", "child"):
        simulation.bend(f"{name}.predicate", refer(name))
    return simulation


def test_an_accepted_auditors_counts() -> None:
    assert unaudited().verify().verdict == "INCOMPLETE"
    assert with_audits().verify().verdict == "PASS"


@pytest.mark.parametrize("signer", ["developer", "a stranger", "another auditor"])
def test_nobody_elses_does(signer: str) -> None:
    report = with_audits(signer).verify()
    assert (report.verdict, failed(report)) == ("INCOMPLETE", set())
    assert claim_of(report, "dataset-exclusion").level == "committed"
    assert any(finding.code == "auditor" and finding.status == "not_checked" for finding in report.findings)


def test_about_other_data_it_is_denied() -> None:
    other, _ = commitment_of("training", ["other"])
    report = with_audits(commitment_sha256=other.sha256()).verify()
    assert report.verdict == "DENY"
    assert "audit" in failed(report)
    assert "a commitment that the certificate does not refer to" in report.reason


def test_without_asking_what_it_is_about_it_would_count_for_nothing_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other, _ = commitment_of("training", ["other"])
    monkeypatch.setattr(data_ties, "_referred", lambda case: {other.sha256()})
    report = with_audits(commitment_sha256=other.sha256(), records=other.records.count).verify()
    assert report.verdict == "INCOMPLETE"


def test_a_mismatch_is_denied() -> None:
    report = with_audits(outcome="MISMATCH", detail="set of 3, expected 4").verify()
    assert report.verdict == "DENY"
    assert "records-tie" in failed(report)
    assert "set of 3, expected 4" in report.reason


def test_a_mismatch_of_another_view_is_denied() -> None:
    simulation = Simulation()
    seen = see_through(simulation)
    seen.audited.clear()
    commitment = seen.training["child"].commitment
    bad = data_audit(commitment, outcome="MISMATCH", detail="ordered root")
    simulation.data_auditors.append(lambda name: [bad] if name == "child" else [])
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert "view-tie" in failed(report)


def test_a_match_with_another_number_of_records_is_denied() -> None:
    report = with_audits(records="7").verify()
    assert report.verdict == "DENY"
    assert "records-tie" in failed(report)


def test_without_the_comparison_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_ties, "_against", lambda case, sha256: None)
    assert with_audits(records="7").verify().verdict == "PASS"
    assert with_audits(outcome="MISMATCH", detail="ordered root").verify().verdict == "PASS"


def test_a_mismatch_that_is_left_out_is_noted() -> None:
    """As for audits of the run: it neither helps nor harms, and it is said."""
    simulation = Simulation()
    commitment = simulation.training["child"][0]

    def leave_out(lines: list[bytes]) -> None:
        simulation.add_data_audit(data_audit(commitment, outcome="MISMATCH", detail="ordered root"))
        lines.append(simulation.lines[-1])

    report = simulation.bend("lines", leave_out).verify()
    assert report.verdict == "PASS"
    assert "unreferenced-audit" in {note.code for note in report.notes}


def test_a_subject_other_than_the_commitment_is_denied() -> None:
    simulation = unaudited()

    def refer(predicate: dict[str, Any]) -> None:
        result = data_audit(simulation.training["child"][0])
        predicate["audits"] = [*predicate["audits"], simulation.add_data_audit(result, subject="ab" * 32)]

    report = simulation.bend("child.predicate", refer).verify()
    assert report.verdict == "DENY"
    assert "its subject is not the commitment" in report.reason


def test_an_audit_of_the_run_is_none_of_data() -> None:
    """The predicate of a data audit under the type of an audit, and with a field more: neither is read."""
    simulation = unaudited()

    def refer(predicate: dict[str, Any]) -> None:
        result = data_audit(simulation.training["child"][0])
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "dataset-commitment", "digest": {"sha256": result["commitment_sha256"]}}],
            "predicateType": DATA_AUDIT,
            "predicate": {**result, "level": "audited"},
        }
        simulation.lines.append(sign(statement, key("auditor")))
        predicate["audits"] = [*predicate["audits"], sha256_hex(canonical_bytes(statement))]

    report = simulation.bend("child.predicate", refer).verify()
    assert report.verdict == "INCOMPLETE"
    assert any(note.code == "predicate" for note in report.notes)
