"""Rehearsal: a certificate is verified as anybody will verify it, before it is written.

Spec: `specs/verification.md`.

Shows: that nothing in the release bundle fails, and that nothing but a policy is lacking. Does not show: what a policy
says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attest.bundle import MAX_TOTAL_BYTES, WEIGHTS_FILE, ReleaseBundle
from attest.draft import Draft
from attest.verdict.codes import CODES
from attest.verdict.findings import Finding
from attest.verdict.report import Report
from attest.verdict.verify import verify
from pot.canonical import read_file
from pot.commitments.model import ModelFile
from pot.errors import Refused
from pot.recording.checking.chain import ChainResult
from pot.recording.precommit import Precommit

__all__ = ["rehearse", "weights_hint"]

# what only a policy can decide; everything else must already hold when the certificate is made
_FOR_POLICIES: Final = frozenset(
    {
        "signature", "identity", "policy", "circuit", "srs", "step-proof", "state-opening", "batch-opening",
        "step-absence", "requirement",
    }
)  # fmt: skip


def weights_hint(run_dir: Path, files: Sequence[ModelFile], precommit: Precommit, chain: ChainResult) -> str:
    """What to do where the weights that the run ends with are not in the folder under their name; "" otherwise."""
    if precommit.semantics == "exact" or any(file.path == WEIGHTS_FILE for file in files):
        return ""
    paths = (file.path for file in chain.segments[-1].end_state.files)
    last = next((path for path in paths if path.rsplit("/", 1)[-1] == WEIGHTS_FILE), None)
    copy = "" if last is None else f"copy {run_dir / last} into it, or "
    return f"; {copy}save the model with safetensors as {WEIGHTS_FILE}"


def rehearse(model_dir: Path, files: Sequence[ModelFile], draft: Draft, line: bytes, hint: str) -> Report:
    """Verify as anybody will, before it is written; `hint`: what mends it where something is lacking."""
    weights = next(
        (read_file(model_dir / f.path, limit=MAX_TOTAL_BYTES) for f in files if f.path == WEIGHTS_FILE), None
    )
    release = ReleaseBundle(model_dir.name, tuple(files), weights, (line, *draft.lines), draft.objects)
    report = verify(release, None)
    _refuse_what_fails(model_dir, report, hint)
    return report


def _refuse_what_fails(model_dir: Path, report: Report, hint: str) -> None:
    for finding in report.findings:
        if finding.status == "failed":
            raise Refused(f"{model_dir}: the certificate would be denied, nothing is written: {_words(finding)}")
        blocked = finding.status == "not_checked" and CODES[finding.code].blocks and finding.code not in _FOR_POLICIES
        if blocked:
            raise Refused(
                f"{model_dir}: the certificate would be incomplete, nothing is written: {_words(finding)}{hint}"
            )


def _words(finding: Finding) -> str:
    return f"{finding.code}: {finding.subject}: {finding.detail}"
