"""A37: somebody signs another's certificate, transcript and all, in their own name."""

from __future__ import annotations

from simulated_release import Simulation, failed, key, sign

from attest.bundle import SigstoreBundle
from pot.canonical import parse


def test_another_signer_counts_for_nothing() -> None:
    simulation = Simulation()
    simulation.signers["child"] = "mallory"
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE" or report.verdict == "DENY"
    assert report.certificate is None or report.certificate.signer == "Acme"
    assert "signature" in {note.code for note in report.notes}


def test_a_second_signature_by_another_changes_nothing() -> None:
    simulation = Simulation()

    def also(lines: list[bytes]) -> list[bytes]:
        payload = SigstoreBundle.from_line(lines[-1], what="line").dsse_envelope.payload_bytes()
        return [sign(parse(payload, what="payload"), key("mallory")), *lines]

    report = simulation.bend("lines", also).verify()
    assert report.verdict == "PASS"
    assert report.certificate is not None
    assert report.certificate.signer == "Acme"


def test_an_auditor_cannot_certify_and_a_developer_cannot_audit() -> None:
    simulation = Simulation()
    simulation.signers["child"] = "auditor"
    assert simulation.verify().verdict != "PASS"

    simulation = Simulation()
    honest = simulation.add_audit
    simulation.add_audit = lambda result, signer="developer": honest(result, "developer")  # type: ignore[method-assign]
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert any(f.code == "auditor" and f.status == "not_checked" for f in report.findings)
    assert {item.found for item in report.policy.requirements if item.claim == "dataset-exclusion"} == {"committed"}  # type: ignore[union-attr]
