"""What a certificate says of proven steps: the step proofs, their circuit, and openings of what their points hide.

Spec: `specs/certificate.md`, "Objects of a certificate"; `specs/openings.md`. Opening the ends of a run
tells nothing beyond both weight files. Opening batches gives their records to whoever has the release bundle.

Shows: nothing by itself; see `attest.verdict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attest.draft import MAX_COMMITMENT_BYTES, Draft, named_set
from pot.canonical import read_file, sha256_hex
from pot.commitments.dataset import DatasetCommitment, split_digests
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.commitments.state import entries_from_safetensors
from pot.errors import MissingExtra, Refused, UsageError
from pot.recording.checking.chain import ChainResult
from pot.recording.precommit import Precommit, total_records
from pot.recording.state import MAX_STATE_BYTES, checkpoint_name
from pot.recording.transcript import StartEvent, Transcript

if TYPE_CHECKING:
    from pot.zk.circuits.field import Vector
    from pot.zk.kit import VerifyingKit
    from pot.zk.opening_verify import BatchOpening

__all__ = ["Disclosure", "step_claims"]

_MAX_SECRET_BYTES: Final = 1024

Run = tuple[Precommit, Transcript, ChainResult]


@dataclass(frozen=True)
class Disclosure:
    """What may be opened. `secret`: the run's secret file, which opens the run's first and last state.

    `kept`: the folder in which a float run's trainer kept its states. `exclusions`: commitments of the sets that no
    proven step read a record of; `records`: the run's data, one file or folder for each dataset, in order: the records
    of all proven steps are put into the certificate.
    """

    secret: Path | None = None
    kept: Path | None = None
    exclusions: Sequence[Path] = ()
    records: Sequence[Path] = ()


def step_claims(
    draft: Draft, run_dir: Path, run: Run, step_proofs: Sequence[Path],
    kit_dir: Path | None, disclosure: Disclosure, commitments: Sequence[Path],
) -> list[dict[str, Any]]:  # fmt: skip
    """The claims of step proofs: that they hold, and which exclusion sets their batches left out.

    `commitments`: where the listings of exclusion sets are looked for beside their own folders. Raises `UsageError`,
    `Malformed`, `Refused`.
    """
    if not step_proofs:
        if disclosure.secret is not None or disclosure.exclusions or disclosure.records:
            raise UsageError("certify: nothing is opened without step proofs; give them with --step-proofs")
        return []
    if kit_dir is None:
        raise UsageError("certify: step proofs need their circuit; give the folder that pot prove used with --kit")
    from pot.zk.kit import open_kit

    kit = open_kit(kit_dir).verifying
    _add_kit(draft, kit)
    proven = _proven(draft, kit, kit_dir, step_proofs)
    claim: dict[str, Any] = {
        "type": "steps-proven",
        "circuit_sha256": kit.circuit.sha256(),
        "steps": [{"step": str(step), "proof_sha256": sha256} for step, sha256 in sorted(proven.items())],
    }
    if disclosure.secret is None:
        if disclosure.exclusions or disclosure.records:
            raise UsageError("certify: opening batches takes the run's secret; give it with --secret")
        return [claim]
    secret = _secret(disclosure.secret, run[0])
    claim |= _ends(draft, kit, run_dir, run, secret, disclosure.kept)
    return [claim, *_excluded(draft, kit, run, secret, sorted(proven), disclosure, commitments)]


def _add_kit(draft: Draft, kit: VerifyingKit) -> None:
    """The circuit and everything that its document names; the digests were compared when it was opened."""
    for data in (kit.circuit.to_bytes(), kit.step.to_bytes(), kit.srs):
        draft.add(data)
    for part in kit.parts:
        draft.add(part.settings)
        draft.add(part.verifying_key)


def _proven(draft: Draft, kit: VerifyingKit, kit_dir: Path, step_proofs: Sequence[Path]) -> dict[int, str]:
    from pot.zk.proof import MAX_STEP_PROOF_BYTES
    from pot.zk.verifier import read_step_proof

    proven: dict[int, str] = {}
    for path in step_proofs:
        data = read_file(path, limit=MAX_STEP_PROOF_BYTES)
        proof = read_step_proof(data, what=str(path))
        if proof.circuit_sha256 != kit.circuit.sha256():
            raise Refused(f"{path}: the step proof is of another circuit than {kit_dir}")
        if int(proof.step) in proven:
            raise UsageError(f"{path}: step {proof.step} has a second step proof; give one for each step")
        proven[int(proof.step)] = draft.add(data)
    return proven


def _secret(path: Path, precommit: Precommit) -> bytes:
    secret = read_file(path, limit=_MAX_SECRET_BYTES)
    if precommit.secret_sha256 is not None and sha256_hex(secret) != precommit.secret_sha256:
        raise Refused(f"{path}: is not the secret that the run pre-committed to ({precommit.secret_sha256})")
    return secret


def _ends(
    draft: Draft, kit: VerifyingKit, run_dir: Path, run: Run, secret: bytes,
    kept: Path | None,
) -> dict[str, str]:  # fmt: skip
    """Openings of the first and the last state."""
    from pot.zk.opened_state import check_fresh, state_of
    from pot.zk.opening import open_state
    from pot.zk.opening_verify import given_blinds
    from pot.zk.runs.rewind import points_of

    found: dict[str, str] = {}
    made: list[tuple[str, str, list[Vector]]] = []
    for name, number in (("first", 0), ("last", run[2].segments[-1].last)):
        model = read_file(run_dir / checkpoint_name(number) / "model.safetensors", limit=MAX_STATE_BYTES)
        rest = _rest(kit, run_dir, number, kept)
        opening = open_state(
            kit,
            secret=secret,
            precommit_sha256=run[0].sha256(),
            number=number,
            model_sha256=draft.add(model),
            rest_sha256=None if rest is None else draft.add(rest),
        )
        found[f"{name}_opening_sha256"] = draft.add(opening.to_bytes())
        held = [] if rest is None else entries_from_safetensors(rest)
        tensors = entries_from_safetensors(model)
        state = state_of(kit.step, tensors, held, semantics=run[0].semantics, start=number == 0)
        if number == 0:
            check_fresh(kit.step, state)
        vectors = kit.family.state_vectors(kit.layout, state, given_blinds(opening), number == 0)
        points = points_of(run[2], max(number, 1))
        made.append((f"the {name} state", points.before if number == 0 else points.after, vectors))
    _check_points(kit, made)
    return found


def _check_points(kit: VerifyingKit, opened: Sequence[tuple[str, str, list[Vector]]]) -> None:
    """Refuse openings of another secret or other data; a rehearsal pins no circuit. Nothing is checked without ezkl."""
    from pot.zk.engine import EzklEngine
    from pot.zk.kit import commit_vectors

    try:
        made = commit_vectors(kit, [vector for _, _, vectors in opened for vector in vectors], EzklEngine())
    except MissingExtra:
        return
    for what, expected, vectors in opened:
        found, made = "".join(made[: len(vectors)]), made[len(vectors) :]
        if found != expected:
            raise Refused(f"{what} has another point than the transcript's; give the run's own secret and data")


def _rest(kit: VerifyingKit, run_dir: Path, number: int, kept: Path | None) -> bytes | None:
    """Safetensors bytes of the state's tensors that are no weights; None where the program has none."""
    from pot.zk.runs.kept import read_kept
    from pot.zk.semantics.program import Program, is_remembered
    from pot.zk.training import integer_safetensors, read_state

    names = kit.family.state_tensors
    others = [name for name in names if is_remembered(name, names)]
    if not others:
        return None
    if kept is not None:
        state = read_kept(kept, number)
    elif not isinstance(kit.step, Program) or any(item.slack for item in kit.step.next):
        raise UsageError(
            "certify: the state holds more than weights; give the folder that the trainer kept with --kept"
        )
    else:
        state = read_state(kit.step, run_dir / checkpoint_name(number))
    return integer_safetensors({name: state[name] for name in sorted(others)})


def _excluded(
    draft: Draft, kit: VerifyingKit, run: Run, secret: bytes,
    proven: Sequence[int], disclosure: Disclosure, commitments: Sequence[Path],
) -> list[dict[str, Any]]:  # fmt: skip
    """One claim for each exclusion set; all rest on the same openings of all proven steps' batches."""
    if bool(disclosure.exclusions) != bool(disclosure.records):
        raise UsageError("certify: --step-exclude and --records belong together: the set, and the records to disclose")
    if not disclosure.exclusions:
        return []
    openings = _open_batches(kit, run, secret, proven, disclosure.records, draft)
    steps = [{"step": opening.step, "opening_sha256": draft.add(opening.to_bytes())} for opening in openings]
    claims = []
    for path in disclosure.exclusions:
        document = read_file(path, limit=MAX_COMMITMENT_BYTES)
        name, exclusion, digests = named_set(draft, sha256_hex(document), [path, path.parent, *commitments])
        _check_absent(draft, kit, run, openings, DatasetCommitment.from_bytes(document, what=str(path)), digests)
        claims.append(
            {
                "type": "step-exclusion",
                "name": name,
                "exclusion_sha256": exclusion,
                "digests_sha256": digests,
                "circuit_sha256": kit.circuit.sha256(),
                "steps": steps,
            }
        )
    return claims


def _check_absent(
    draft: Draft, kit: VerifyingKit, run: Run, openings: Sequence[BatchOpening], x: DatasetCommitment, digests: str
) -> None:
    """Refuse a claim that would be denied; a rehearsal without a policy pins no circuit, and does not get that far."""
    from pot.zk.opening_verify import record_digests, records_of, seen_through, unseen_fields

    inside = set(split_digests(draft.objects[digests]))
    data = _commitments(draft, run[0])
    for commitment in data:
        unseen_fields(kit.step, commitment, x)
    for opening in openings:
        records = records_of(opening)
        places = record_digests(data, _indices(run, int(opening.step)), records, opening)
        for value, (number, digest) in zip(records, places, strict=True):
            if seen_through(data[number], x, digest, value) in inside:
                raise Refused(f"step {opening.step} read a record of the exclusion set; the claim would be denied")


def _commitments(draft: Draft, precommit: Precommit) -> list[DatasetCommitment]:
    return [
        DatasetCommitment.from_bytes(draft.objects[item.commitment_sha256], what=item.name) for item in precommit.data
    ]


def _indices(run: Run, number: int) -> list[int]:
    """The records that seed and order give for a step."""
    precommit, start = run[0], run[1].events[0]
    if not isinstance(start, StartEvent) or precommit.order.method != "feistel/1":
        raise UsageError("certify: no seed fixes the order of this run, so opened batches show nothing")
    seed = run_seed(precommit.sha256(), bytes.fromhex(start.nonce))
    return list(batch_records(seed, total_records(precommit), int(precommit.order.batch), number)[2])


def _open_batches(
    kit: VerifyingKit, run: Run, secret: bytes, proven: Sequence[int], records: Sequence[Path], draft: Draft
) -> list[BatchOpening]:
    from pot.data.readers import RecordDataset
    from pot.zk.opening import CommittedRecords, open_batch
    from pot.zk.opening_verify import given_blinds, records_of
    from pot.zk.runs.rewind import points_of

    data = _commitments(draft, run[0])
    if len(records) != len(data):
        raise UsageError(f"certify: the run has {len(data)} datasets; give --records for each, in order")
    datasets = []
    for path, commitment in zip(records, data, strict=True):
        try:
            datasets.append(CommittedRecords(commitment, RecordDataset(path)))
        except Refused as error:
            raise Refused(f"{path}: {error}") from None
    openings = [
        open_batch(
            kit,
            secret=secret,
            precommit_sha256=run[0].sha256(),
            number=number,
            indices=_indices(run, number),
            datasets=datasets,
        )
        for number in proven
    ]
    made = []
    for number, opening in zip(proven, openings, strict=True):
        arrays = kit.family.batch_arrays(records_of(opening))
        vectors = kit.family.batch_vectors(kit.layout, arrays, given_blinds(opening))
        made.append((f"the batch of step {number}", points_of(run[2], number).batch, vectors))
    _check_points(kit, made)
    return openings
