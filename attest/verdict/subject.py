"""Step 7: the certificate is about the files at hand, all of them and no others.

Spec: `specs/verification.md`, step 7; OpenSSF Model Signing v1.0 for the root digest. For an ancestor, whose folder is
not at hand, the certificate's own file list must give its subject.

Shows: these files, under these names, are the certificate's subject.
Does not show: anything about `claims.jsonl`, `.pot` and `model.sig`, which are no part of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from attest.verdict.case import Case
from pot.commitments.model import ModelFile, model_digest, names_digest

__all__ = ["check_subject"]


def check_subject(case: Case) -> None:
    """Compare the subject, the names and every file. Writes `subject` and `files`."""
    certificate, ledger = case.certificate, case.ledger
    listed = certificate.model.files
    subject = case.certified.statement.subject[0]
    files: Sequence[ModelFile] = case.release.files if case.at_hand else listed
    found = model_digest(files)
    if found == subject.digest.sha256_:
        ledger.passed("subject", "model", "the model-signing root digest is the certificate's subject")
    else:
        ledger.failed(
            "subject",
            "model",
            "the files at hand are not the certified model" if case.at_hand else "the file list is not its subject's",
            expected=subject.digest.sha256_,
            found=found,
        )
    problem = _first_difference(listed, files)
    if problem is None and len({file.path for file in listed}) != len(listed):
        problem = ("a file is listed twice", None, None)
    if problem is None and names_digest(listed) != certificate.model.names_blake3:
        problem = (
            "the names digest is not that of the file list",
            certificate.model.names_blake3,
            names_digest(listed),
        )
    if problem is None and subject.name != certificate.model.name:
        problem = ("the subject has another name than the model", certificate.model.name, subject.name)
    if problem is None:
        ledger.passed("files", "model", f"{len(listed)} files, their names and lengths as listed")
    else:
        ledger.failed("files", "model", problem[0], expected=problem[1], found=problem[2])


def _first_difference(
    listed: Sequence[ModelFile], files: Sequence[ModelFile]
) -> tuple[str, str | None, str | None] | None:
    wanted = {file.path: file for file in listed}
    have = {file.path: file for file in files}
    for path in sorted(wanted.keys() | have.keys()):
        if path not in have:
            return f"{path}: listed in the certificate, but not there", wanted[path].sha256, None
        if path not in wanted:
            return f"{path}: a foreign file, which the certificate does not list", None, have[path].sha256
        if have[path] != wanted[path]:
            return f"{path}: has other bytes than listed", wanted[path].sha256, have[path].sha256
    return None
