"""A62, the points of step proofs: two runs of one lineage under one secret give their difference away.

The difference of two points is the point of the difference of what they commit to, without any blind. Nothing that was
claimed is false, so the verdict stays; the report says so, and that these points hide nothing.
"""

from __future__ import annotations

from typing import Any

from opened_release import Opened
from simulated_release import SECRET

from attest.verdict.report import Report
from pot.canonical import sha256_hex
from pot.zk.circuits.field import MODULUS
from pot.zk.circuits.packing import blinds_of


def secret_of(simulation: Opened, **secrets: bytes) -> Opened:
    for name, secret in secrets.items():

        def named(precommit: dict[str, Any], secret: bytes = secret) -> None:
            precommit["secret_sha256"] = sha256_hex(secret)

        simulation.bend(f"{name}.precommit", named)
    return simulation


def blinding(report: Report) -> list[str]:
    return [finding.status for finding in report.findings if finding.code == "blinding"]


def test_blinds_of_two_runs_under_one_secret_cancel() -> None:
    """Why it matters: the blinds depend on secret, label and step alone, so the same step's are the same."""
    layout = Opened().kit.layout
    one, other = (blinds_of(layout, SECRET, "batch", 3) for _ in range(2))
    fresh = blinds_of(layout, bytes(32), "batch", 3)
    assert all((a - b) % MODULUS == 0 for a, b in zip(one[0], other[0], strict=True))
    assert all((a - b) % MODULUS for a, b in zip(one[0], fresh[0], strict=True))


def test_a_secret_that_an_ancestor_had_is_named() -> None:
    report = secret_of(Opened().alone(), parent=SECRET, child=SECRET).verify()
    assert report.verdict == "PASS"  # the prover's own secrets, and no claim, are the worse for it
    assert "not_checked" in blinding(report)
    assert "secret-reused" in {item.code for item in report.not_shown}
    finding = next(f for f in report.findings if f.code == "blinding" and f.status == "not_checked")
    assert "the run of parent has the same secret" in finding.detail


def test_secrets_of_their_own_are_not() -> None:
    for secrets in ({"child": SECRET}, {"parent": bytes(32), "child": SECRET}):
        report = secret_of(Opened().alone(), **secrets).verify()
        assert set(blinding(report)) == {"passed"}
        assert "secret-reused" not in {item.code for item in report.not_shown}
    assert blinding(Opened().alone().verify()) == []
