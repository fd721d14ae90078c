"""Audits that a certificate is not to refer to are refused before it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from simulated_release import Simulation, key, sign

from attest.draft import Draft, add_audit
from attest.predicate import AUDIT
from pot.errors import Refused
from pot.recording.transcript import Transcript, read_transcript


@pytest.fixture(scope="module")
def run() -> tuple[dict[str, Any], Transcript]:
    """An honest audit of the parent's run, and its transcript."""
    simulation, kept = Simulation(), []
    simulation.bend("parent.audits", lambda results: kept.extend(results)).release()
    return kept[0], read_transcript(simulation.models["parent"].transcript)


def signed(result: dict[str, Any], folder: Path) -> Path:
    subject = [{"name": "transcript.jsonl", "digest": {"sha256": result["transcript_sha256"]}}]
    kind = "https://in-toto.io/Statement/v1"
    statement = {"_type": kind, "subject": subject, "predicateType": AUDIT, "predicate": result}
    path = folder / "audit.jsonl"
    path.write_bytes(sign(statement, key("auditor")) + b"\n")
    return path


def test_an_honest_audit_is_taken(run: tuple[dict[str, Any], Transcript], tmp_path: Path) -> None:
    draft = Draft()
    other = {**run[0], "extra": [{"unit_number": "3", "outcome": "MATCH"}]}
    for result in (run[0], other):
        add_audit(draft, signed(result, tmp_path), run[1])
    assert len(draft.lines) == 2


@pytest.mark.parametrize("beside", [True, False])
def test_a_mismatch_is_refused_also_beside_the_challenge(
    run: tuple[dict[str, Any], Transcript], tmp_path: Path, beside: bool
) -> None:
    bad = {"extra" if beside else "replays": [{"unit_number": "3", "outcome": "MISMATCH"}]}
    with pytest.raises(Refused, match="found a mismatch"):
        add_audit(Draft(), signed({**run[0], **bad}, tmp_path), run[1])


def test_another_nonce_than_the_runs_is_refused(run: tuple[dict[str, Any], Transcript], tmp_path: Path) -> None:
    other = {**run[0], "seed_nonce": {**run[0]["seed_nonce"], "nonce": "77" * 32}}
    with pytest.raises(Refused, match="another nonce"):
        add_audit(Draft(), signed(other, tmp_path), run[1])
    elsewhere = {**other, "seed_nonce": {**other["seed_nonce"], "precommit_sha256": "ab" * 32}}
    add_audit(Draft(), signed(elsewhere, tmp_path), run[1])
