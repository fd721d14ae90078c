"""What a certificate will refer to, gathered before anything is signed or written: claims about data, and audits.

Spec: `specs/certificate.md`, "Objects of a certificate". Every commitment, listing, set proof, composition and audit is
copied, so that the release bundle can be verified alone.

Shows: nothing by itself; see `attest.verdict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from attest.bundle import MAX_TOTAL_BYTES, SigstoreBundle, split_lines
from attest.predicate import AUDIT, DATA_AUDIT
from attest.statement import Statement
from pot.audit.audit import AuditResult
from pot.audit.data_audit import DataAudit
from pot.audit.salted import InnerDigests
from pot.canonical import MAX_DOCUMENT_BYTES, MAX_LINE_BYTES, read_file, sha256_hex
from pot.commitments.dataset import MAX_DIGESTS_BYTES, DatasetCommitment
from pot.commitments.listing import check_length
from pot.commitments.merkle_verify import ProofRefused
from pot.data.exclude_verify import MAX_EXCLUSION_BYTES, read_exclusion
from pot.errors import Malformed, Refused, UsageError
from pot.recording.begin import MAX_NONCE_BYTES, NONCE_FILE
from pot.recording.precommit import Precommit, SeedNonce
from pot.recording.transcript import StartEvent, Transcript

__all__ = [
    "MAX_COMMITMENT_BYTES",
    "Draft",
    "add_audit",
    "add_inner",
    "add_seed_beacon",
    "composition_claim",
    "exclusion_claim",
    "find_commitment",
    "inclusion_claim",
    "named_set",
]

MAX_COMMITMENT_BYTES: Final = 16 << 20
_MAX_SEARCHED: Final = 1000  # files that are looked at for a commitment


@dataclass
class Draft:
    """Objects by digest, and lines of `claims.jsonl`."""

    objects: dict[str, bytes] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    total: int = 0

    def add(self, data: bytes) -> str:
        """Keep an object; returns its digest. Raises `UsageError` above what a verifier reads."""
        sha256 = sha256_hex(data)
        if sha256 not in self.objects:
            self.total += len(data)
            if self.total > MAX_TOTAL_BYTES:
                raise UsageError(
                    f"certify: the evidence is larger than the {MAX_TOTAL_BYTES} bytes that a verifier reads"
                )
            self.objects[sha256] = data
        return sha256


def find_commitment(sha256: str, places: Sequence[Path]) -> Path:
    """The file, among these and directly in these folders, whose bytes are the commitment with this digest.

    Raises `UsageError`.
    """
    looked = 0
    for place in places:
        for path in sorted(place.glob("*.json")) if place.is_dir() else [place]:
            looked += 1
            if looked > _MAX_SEARCHED:
                break
            if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_COMMITMENT_BYTES:
                continue
            if sha256_hex(read_file(path, limit=MAX_COMMITMENT_BYTES)) == sha256:
                return path
    names = ", ".join(str(place) for place in places)
    raise UsageError(f"no commitment with SHA-256 {sha256} in {names}; give its file with --commitment")


def add_audit(draft: Draft, path: Path, transcript: Transcript) -> tuple[str, AuditResult | DataAudit]:
    """A signed audit of the run, or of its data: its payload's digest, and what it says.

    Raises `Malformed`, `Refused` (about another run, with a mismatch, or with another nonce than the run's).
    """
    lines = split_lines(read_file(path, limit=MAX_LINE_BYTES))
    if len(lines) != 1:
        raise Malformed(f"{path}: expected one line, the signed audit that pot audit writes")
    payload = SigstoreBundle.from_line(lines[0], what=str(path)).dsse_envelope.payload_bytes()
    statement = Statement.from_payload(payload, what=str(path))
    result: AuditResult | DataAudit
    if statement.predicate_type == AUDIT:
        result = AuditResult.from_value(statement.predicate, what=str(path))
        if result.transcript_sha256 != transcript.sha256():
            raise Refused(f"{path}: the audit is about another transcript, {result.transcript_sha256}")
        _check_nonce(result, transcript, path)
        units = (*result.replays, *(result.extra or ()))
        bad = any(unit.outcome == "MISMATCH" for unit in units) or bool(result.datasets_differ)
        bad = bad or "MISMATCH" in (result.init, result.points)
    elif statement.predicate_type == DATA_AUDIT:
        result = DataAudit.from_value(statement.predicate, what=str(path))
        bad = not result.agrees
    else:
        raise Malformed(f"{path}: not an audit but {statement.predicate_type}")
    if bad:
        raise Refused(f"{path}: the audit found a mismatch; a certificate that refers to it would be denied")
    draft.lines.append(lines[0])
    return sha256_hex(payload), result


def _check_nonce(result: AuditResult, transcript: Transcript, path: Path) -> None:
    start, given = transcript.events[0], result.seed_nonce
    if not isinstance(start, StartEvent) or start.nonce_source != "verifier" or given is None:
        return
    if given.precommit_sha256 == start.precommit_sha256 and given.nonce != start.nonce:
        raise Refused(f"{path}: its auditor gave another nonce for this run; a certificate with it would be denied")


def add_seed_beacon(draft: Draft, run_dir: Path, precommit: Precommit) -> None:
    """The signature of the beacon's round that the seed's nonce is the digest of, as an object under the nonce's name.

    Raises `Malformed` where `nonce.json` does not hold it.
    """
    if precommit.beacon is None:
        return
    path = run_dir / NONCE_FILE
    found = SeedNonce.from_bytes(read_file(path, limit=MAX_NONCE_BYTES), what=str(path))
    if found.beacon is None or found.beacon.randomness != found.nonce:
        raise Malformed(f"{path}: does not hold the beacon's round whose randomness is its nonce; make it again")
    draft.add(bytes.fromhex(found.beacon.signature))


def add_inner(draft: Draft, path: Path, audits: Sequence[AuditResult]) -> None:
    """An auditor's inner digests, revealed. Raises `Refused` where no audit of this certificate committed to them."""
    data = read_file(path, limit=MAX_DOCUMENT_BYTES)
    document = InnerDigests.from_bytes(data, what=str(path))
    if document.sha256() not in {audit.inner_commitment for audit in audits}:
        raise Refused(
            f"{path}: no audit of this certificate has committed to these inner digests; give it with --audit"
        )
    draft.add(document.to_bytes())


def exclusion_claim(draft: Draft, path: Path, commitments: Sequence[Path], precommit: Precommit) -> dict[str, Any]:
    """The claim of a file of `pot data exclude`, against a dataset of the run or another commitment to its files."""
    data = read_file(path, limit=MAX_EXCLUSION_BYTES)
    header = read_exclusion(data, what=str(path)).header
    promised = {item.commitment_sha256 for item in precommit.data}
    if header.training_sha256 not in promised:
        other = find_commitment(header.training_sha256, [path.parent, *commitments])
        document = read_file(other, limit=MAX_COMMITMENT_BYTES)
        if not _same_files(draft, promised, DatasetCommitment.from_bytes(document, what=str(other))):
            raise Refused(f"{path}: proves against {other}, which is not about the files that this run committed to")
        draft.add(document)
    name, exclusion, digests = named_set(draft, header.exclusion_sha256, [path.parent, *commitments])
    return {
        "type": "dataset-exclusion",
        "name": name,
        "exclusion_sha256": exclusion,
        "training_sha256": header.training_sha256,
        "digests_sha256": digests,
        "proof_sha256": draft.add(data),
    }


def _same_files(draft: Draft, promised: set[str], other: DatasetCommitment) -> bool:
    """Whether a pre-committed dataset lists the same files; everything else is left to the rehearsal."""
    files = [(shard.bytes, shard.sha256, shard.blake3) for shard in other.shards]
    held = (draft.objects[sha256] for sha256 in promised if sha256 in draft.objects)
    own = [DatasetCommitment.from_bytes(data, what="dataset commitment").shards for data in held]
    return bool(files) and files in [[(s.bytes, s.sha256, s.blake3) for s in shards] for shards in own]


def inclusion_claim(draft: Draft, path: Path, commitments: Sequence[Path], precommit: Precommit) -> dict[str, Any]:
    """The claim of a file of `pot data include`, against a dataset of the run."""
    from pot.data.include_verify import MAX_INCLUSION_BYTES, read_inclusion

    data = read_file(path, limit=MAX_INCLUSION_BYTES)
    header = read_inclusion(data, what=str(path)).header
    if header.training_sha256 not in {item.commitment_sha256 for item in precommit.data}:
        raise Refused(f"{path}: proves against {header.training_sha256}, which this run did not commit to")
    name, inclusion, digests = named_set(draft, header.inclusion_sha256, [path.parent, *commitments])
    return {
        "type": "dataset-inclusion",
        "name": name,
        "inclusion_sha256": inclusion,
        "training_sha256": header.training_sha256,
        "digests_sha256": digests,
        "proof_sha256": draft.add(data),
    }


def named_set(draft: Draft, sha256: str, places: Sequence[Path]) -> tuple[str, str, str]:
    """Name, commitment and listing of X or Y; the listing lies beside the commitment."""
    from pot.data.commit import listing_path

    found = find_commitment(sha256, places)
    document = read_file(found, limit=MAX_COMMITMENT_BYTES)
    commitment = DatasetCommitment.from_bytes(document, what=str(found))
    path = listing_path(found, commitment)
    listing = read_file(path, limit=MAX_DIGESTS_BYTES)
    try:
        check_length(int(commitment.records.count), commitment.gram, listing)
    except ProofRefused as error:
        raise Malformed(f"{path}: is not the listing of {found.name}: {error}") from None
    return found.stem, draft.add(document), draft.add(listing)


def composition_claim(draft: Draft, path: Path, precommit: Precommit) -> dict[str, Any]:
    """The claim of a file of `pot data compose`, of a dataset of the run."""
    from pot.data.composition_verify import Composition

    data = read_file(path, limit=MAX_DOCUMENT_BYTES)
    composition = Composition.from_bytes(data, what=str(path))
    if composition.commitment_sha256 not in {item.commitment_sha256 for item in precommit.data}:
        raise Refused(f"{path}: is of {composition.commitment_sha256}, which this run did not commit to")
    return {
        "type": "data-composition",
        "training_sha256": composition.commitment_sha256,
        "composition_sha256": draft.add(data),
    }
