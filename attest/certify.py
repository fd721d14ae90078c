"""Certifying: from a run and a model folder to a signed training certificate in a release bundle.

Spec: `specs/certificate.md`. Everything that the certificate refers to is copied into `.pot/objects`, the parent's
claims and objects with it, so that the bundle can be verified alone. Before anything is signed or written, the new
certificate goes through the same procedure that a verifier will use; what would be DENY there is refused here.

Shows: nothing by itself; see `attest.verdict`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attest.bundle import (
    CLAIMS_FILE,
    MAX_CLAIMS_BYTES,
    MAX_TOTAL_BYTES,
    OBJECTS_FOLDER,
    WEIGHTS_FILE,
    SigstoreBundle,
    check_weights_size,
    join_lines,
    read_release,
    split_lines,
)
from attest.draft import (
    MAX_COMMITMENT_BYTES,
    Draft,
    add_audit,
    add_inner,
    add_seed_beacon,
    composition_claim,
    exclusion_claim,
    find_commitment,
    inclusion_claim,
)
from attest.envelope import sign_envelope
from attest.predicate import AUDIT, DATA_AUDIT, NON_CLAIMS, TRAINING_CERTIFICATE, TrainingCertificate
from attest.rehearsal import rehearse, weights_hint
from attest.statement import Statement, make_statement
from attest.step_claims import Disclosure, step_claims
from attest.trust.keys import PrivateKey
from attest.verdict.report import ClaimReport
from pot.audit.audit import AuditResult
from pot.audit.data_audit import DataAudit
from pot.canonical import read_file, sha256_hex, write_file
from pot.commitments.model import ModelFile, model_digest, model_files, names_digest
from pot.errors import PotError, Refused, UsageError
from pot.recording.checking.chain import ChainResult
from pot.recording.checking.finished import load_run
from pot.recording.precommit import Precommit

__all__ = ["Certification", "certify", "sign_audit", "sign_data_audit", "sign_statement"]

_COMMITMENTS_FOLDER: Final = "commitments"


@dataclass(frozen=True)
class Certification:
    """What was made: the certificate's name (SHA-256 of its payload) and the statement.

    `empty_audits`: audits of the run in which nothing was found to match, with what was found. `claims`: what the
    certificate claims, as a verifier reports it who believes nobody yet.
    """

    certificate_sha256: str
    statement: Statement
    objects: int
    empty_audits: tuple[tuple[Path, str], ...] = ()
    claims: tuple[ClaimReport, ...] = ()


def sign_statement(statement: Statement, key: PrivateKey) -> bytes:
    """One line of `claims.jsonl`, without its newline."""
    envelope = sign_envelope(statement.to_bytes(), key)
    return SigstoreBundle.make(envelope, key.public.hint()).to_bytes()


def sign_audit(result: AuditResult, key: PrivateKey | Path) -> bytes:
    """An audit's result as a signed statement about the transcript: one line of `claims.jsonl`, with its newline."""
    signer = PrivateKey.load(key) if isinstance(key, Path) else key
    return sign_statement(make_statement("transcript.jsonl", result.transcript_sha256, AUDIT, result), signer) + b"\n"


def sign_data_audit(result: DataAudit, key: PrivateKey | Path) -> bytes:
    """A data audit as a signed statement about the dataset commitment: one line of `claims.jsonl`, with its newline."""
    signer = PrivateKey.load(key) if isinstance(key, Path) else key
    statement = make_statement("dataset-commitment", result.commitment_sha256, DATA_AUDIT, result)
    return sign_statement(statement, signer) + b"\n"


def certify(
    model_dir: Path,
    run_dir: Path,
    key: PrivateKey,
    *,
    exclusions: Sequence[Path] = (),
    inclusions: Sequence[Path] = (),
    compositions: Sequence[Path] = (),
    audits: Sequence[Path] = (),
    step_proofs: Sequence[Path] = (),
    kit: Path | None = None,
    disclosure: Disclosure | None = None,
    parent: Path | None = None,
    commitments: Sequence[Path] = (),
    inner: Sequence[Path] = (),
    name: str | None = None,
) -> Certification:
    """Make a training certificate for the model in `model_dir` and write it, with its evidence, into that folder.

    `exclusions`, `inclusions`: files of `pot data exclude` and `include`; the commitments that they name are looked for
    beside them, or given as `commitments`. `compositions`: files of `pot data compose`. `audits`: signed audit lines.
    `step_proofs`: files of `pot prove`; `kit`: the folder of their circuit; `disclosure`: which points are opened.
    `parent`: the release bundle of the model that was built on. `inner`: inner digests that auditors revealed. `name`:
    of the model; the folder's name if left out.
    Raises `UsageError`, `Malformed`, `Refused` (the certificate would not hold).
    """
    precommit, transcript, chain = load_run(run_dir)
    check_weights_size(model_dir)
    files = model_files(model_dir)
    draft = Draft()
    parents = _add_parent(draft, precommit, parent)
    for item in precommit.data:
        path = find_commitment(item.commitment_sha256, [run_dir / _COMMITMENTS_FOLDER, *commitments])
        draft.add(read_file(path, limit=MAX_COMMITMENT_BYTES))
    referred = [add_audit(draft, path, transcript) for path in audits]
    audited = [result for _, result in referred if isinstance(result, AuditResult)]
    add_seed_beacon(draft, run_dir, precommit)
    for path in inner:
        add_inner(draft, path, audited)
    claims: list[dict[str, Any]] = [{"type": "training-provenance"}]
    claims += [exclusion_claim(draft, path, commitments, precommit) for path in exclusions]
    claims += [inclusion_claim(draft, path, commitments, precommit) for path in inclusions]
    claims += [composition_claim(draft, path, precommit) for path in compositions]
    run = (precommit, transcript, chain)
    claims += step_claims(draft, run_dir, run, step_proofs, kit, disclosure or Disclosure(), commitments)
    model_name = name or model_dir.resolve().name
    unit = audited[0].challenge.unit if audited else "segment"
    replayed = {u.unit_number for r in audited if r.challenge.unit == unit for u in r.replays if u.outcome == "MATCH"}
    steps = sum(len(segment.steps) for segment in chain.segments)
    predicate = TrainingCertificate.from_value(
        {
            "stage": "training" if precommit.parent is None else "fine-tuning",
            "model": {
                "name": model_name,
                "names_blake3": names_digest(files),
                "files": [file.model_dump() for file in files],
            },
            "run": {
                "precommit_sha256": draft.add(precommit.to_bytes()),
                "transcript_sha256": draft.add(transcript.data),
                "semantics": precommit.semantics,
            },
            "inputs": {
                "complete": True,
                "parents": parents,
                "datasets": [{"name": d.name, "commitment_sha256": d.commitment_sha256} for d in precommit.data],
            },
            "operations": _operations(draft, model_dir, run_dir, files, precommit, chain, parent),
            "claims": claims,
            "audits": list(dict.fromkeys(sha256 for sha256, _ in referred)),
            "coverage": {
                "unit": unit,
                "population": str(len(chain.segments) if unit == "segment" else steps),
                "replayed": str(len(replayed)),
                "proved": str(len(step_proofs)),
            },
            "nonClaims": list(NON_CLAIMS),
        },
        what="training certificate",
    )
    statement = make_statement(model_name, model_digest(files), TRAINING_CERTIFICATE, predicate)
    line = sign_statement(statement, key)
    report = rehearse(model_dir, files, draft, line, weights_hint(run_dir, files, precommit, chain))
    _write(model_dir, draft, line)
    empty = [(path, _outcomes(result)) for path, (_, result) in zip(audits, referred, strict=True)]
    own = sha256_hex(statement.to_bytes())
    return Certification(
        own,
        statement,
        len(draft.objects),
        tuple((path, outcomes) for path, outcomes in empty if outcomes),
        tuple(claim for claim in report.claims if claim.certificate_sha256 == own),
    )


def _outcomes(result: AuditResult | DataAudit) -> str:
    """What an audit of a run found where no unit matched, such as "4 REFUSED"; "" where one did."""
    if isinstance(result, DataAudit):
        return ""
    found = Counter(unit.outcome for unit in (*result.replays, *(result.extra or ())))
    return "" if found["MATCH"] else ", ".join(f"{number} {outcome}" for outcome, number in sorted(found.items()))


def _add_parent(draft: Draft, precommit: Precommit, parent: Path | None) -> list[dict[str, str]]:
    """The parent's claims and objects, and its weights as an object."""
    if precommit.parent is None:
        if parent is not None:
            raise UsageError(
                "certify: the run's pre-commitment names no parent; leave --parent out, or begin the run with it"
            )
        return []
    if parent is None:
        raise UsageError("certify: the run builds on a parent; give its release bundle with --parent")
    release = read_release(parent)
    wanted = precommit.parent
    if model_digest(release.files) != wanted.model_sha256:
        raise Refused(
            f"{parent}: not the model that the run was begun from; its pre-commitment names {wanted.model_sha256}"
        )
    if not any(_payload_sha256(line) == wanted.certificate_sha256 for line in release.lines):
        raise Refused(f"{parent}: holds no certificate {wanted.certificate_sha256}, which the pre-commitment names")
    draft.lines += release.lines
    for sha256 in release.objects:
        data = release.object(sha256)
        if data is not None:
            draft.add(data)
    if release.weights is not None:
        draft.add(release.weights)
    return [{"certificate_sha256": wanted.certificate_sha256, "model_sha256": wanted.model_sha256}]


def _payload_sha256(line: bytes) -> str | None:
    try:
        return sha256_hex(SigstoreBundle.from_line(line, what=CLAIMS_FILE).dsse_envelope.payload_bytes())
    except PotError:  # junk in somebody else's claims is theirs to explain; it matches no digest
        return None


def _operations(
    draft: Draft,
    model_dir: Path,
    run_dir: Path,
    files: Sequence[ModelFile],
    precommit: Precommit,
    chain: ChainResult,
    parent: Path | None,
) -> list[dict[str, str]]:
    """The declared conversions: the parent's weights to the first integers, the last integers to the release."""
    operations: list[dict[str, str]] = []
    if precommit.parent is not None and parent is not None and precommit.parent.operation == "quantise/1":
        source = draft.add(read_file(parent / WEIGHTS_FILE, limit=MAX_TOTAL_BYTES))
        first = draft.add(_state_weights(run_dir, chain, first=True))
        operations.append({"type": "quantise/1", "input_sha256": source, "output_sha256": first})
    if precommit.semantics == "exact":
        released = next((file.sha256 for file in files if file.path == WEIGHTS_FILE), None)
        if released is None:
            how = "float_safetensors makes it from the run's last integers"
            raise UsageError(f"{model_dir}: holds no {WEIGHTS_FILE} to certify; {how}")
        last = draft.add(_state_weights(run_dir, chain, first=False))
        operations.append({"type": "dequantise/1", "input_sha256": last, "output_sha256": released})
    return operations


def _state_weights(run_dir: Path, chain: ChainResult, *, first: bool) -> bytes:
    """The weights' file of the first or last checkpoint, as the transcript names it."""
    event = chain.initial if first else chain.segments[-1].end_state
    for file in event.files if event is not None else ():
        if file.path.rsplit("/", 1)[-1] == WEIGHTS_FILE:
            data = read_file(run_dir / file.path, limit=MAX_TOTAL_BYTES)
            if sha256_hex(data) != file.sha256:
                raise Refused(f"{run_dir / file.path}: not the file that the transcript names")
            return data
    raise Refused(
        f"{run_dir}: the transcript names no {WEIGHTS_FILE} for its {'first' if first else 'last'} checkpoint"
    )


def _write(model_dir: Path, draft: Draft, line: bytes) -> None:
    """Objects first, claims last: a crash in between leaves no reference without its object."""
    claims = model_dir / CLAIMS_FILE
    folder = model_dir / OBJECTS_FOLDER
    if (model_dir / ".pot").is_symlink() or folder.is_symlink():
        raise UsageError(f"{folder}: is a symbolic link; a release bundle holds the folder itself")
    present = split_lines(read_file(claims, limit=MAX_CLAIMS_BYTES)) if claims.exists() or claims.is_symlink() else []
    for sha256, data in draft.objects.items():
        path = folder / sha256
        if not (path.is_file() and not path.is_symlink() and sha256_hex(path.read_bytes()) == sha256):
            write_file(path, data)
    write_file(claims, join_lines([*present, *draft.lines, line]))
