"""An audit: roots recomputed from the data, W_0 regenerated, the challenged segments re-executed; one result document.

Spec: `specs/transcript.md`, "Audit". The result says what this auditor's machine found; signed, it is the evidence that
lets others verify without data and without torch.

Shows: the outcome of every challenged unit, and which datasets' two roots were recomputed from the records.
Does not show: segments that were not chosen, beyond the challenge's arithmetic; nor that the auditor is honest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel

from pot.audit.challenge import Challenge, check_challenge
from pot.audit.replay import Outcome, PointsOutcome, Replay, Replayer
from pot.audit.sandbox import Isolation, Limits
from pot.canonical import MAX_DOCUMENT_BYTES, Count, Document, Hex32, read_file
from pot.commitments.dataset import DatasetCommitment
from pot.errors import MissingExtra, PotError, Refused
from pot.recording.begin import COMMITMENTS_FOLDER, PRECOMMIT_FILE
from pot.recording.chain import ChainResult, check_chain
from pot.recording.environment import capture, differences, environment_sha256
from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit, SeedNonce
from pot.recording.transcript import StartEvent, Transcript, load_transcript

__all__ = ["MAX_DETAIL", "MAX_EXPLAINED", "AuditResult", "Progress", "ReplayedUnit", "audit", "load_run"]

MAX_DETAIL: Final = 300  # characters of an explanation, and
MAX_EXPLAINED: Final = 50  # units that get one: a statement must stay under 64 KiB

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many units are done, and how many there are."""


class ReplayedUnit(BaseModel):
    """The outcome of one challenged unit."""

    model_config = Document.model_config

    unit_number: Count
    outcome: Outcome
    detail: str | None = None


class AuditResult(Document):
    """`pot/audit-result/v1`. `datasets`: commitments whose roots were recomputed; `datasets_differ`: and differed."""

    version: Literal["pot/audit-result/v1"]
    precommit_sha256: Hex32
    transcript_sha256: Hex32
    challenge: Challenge
    replays: tuple[ReplayedUnit, ...]
    datasets: tuple[Hex32, ...]
    datasets_differ: tuple[Hex32, ...] | None = None
    init: Literal["MATCH", "MISMATCH", "NOT_CHECKED"]
    init_detail: str | None = None
    points: PointsOutcome
    seed_nonce: SeedNonce | None = None
    environment_sha256: Hex32
    isolation: Isolation


def load_run(run_dir: Path) -> tuple[Precommit, Transcript, ChainResult]:
    """Read and check a finished run. Raises `Refused` with the first problem of a chain that does not hold."""
    path = run_dir / PRECOMMIT_FILE
    precommit = Precommit.from_bytes(read_file(path, limit=MAX_PRECOMMIT_BYTES), what=str(path))
    transcript = load_transcript(run_dir)
    chain = check_chain(transcript, precommit)
    if chain.problems:
        first = chain.problems[0]
        raise Refused(f"{run_dir}: the transcript does not hold: {first.code}: {first.detail}")
    return precommit, transcript, chain


def audit(
    run_dir: Path,
    challenge: Challenge,
    data: Sequence[Path],
    code: Path,
    *,
    seed_nonce: SeedNonce | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
    hidden: Sequence[Path] = (),
    workers: int = 1,
) -> AuditResult:
    """Answer `challenge` to the run: recompute roots from `data`, regenerate W_0, replay the chosen segments.

    `data`: files or folders with what the program reads, matched by SHA-256. `code`: the folder of its code.
    `seed_nonce`: the nonce document, if this auditor issued it. `hidden`: further folders that the replayed program
    must not see (the released model). `workers`: segments replayed at the same time. Raises `Refused` for a run or
    challenge that does not hold, `UsageError`, `EnvironmentFailure`.
    """
    precommit, transcript, chain = load_run(run_dir)
    check_challenge(challenge, precommit.sha256(), transcript.sha256(), len(chain.segments), int(precommit.steps))
    start = transcript.events[0]
    nonce = start.nonce if isinstance(start, StartEvent) else ""
    if seed_nonce is not None and (seed_nonce.precommit_sha256, seed_nonce.nonce) != (precommit.sha256(), nonce):
        raise Refused(f"{run_dir}: the run does not use the nonce that this auditor issued")
    replayer = Replayer(run_dir, precommit, nonce, data, code, limits=limits, hidden=hidden)
    same, differ = _datasets(run_dir, precommit, replayer, progress)
    replays, first = _replay_chosen(challenge, chain, replayer, progress, max(1, workers))
    init, detail = _init(first, chain, precommit)
    units = [
        _unit(number, replays[_segment_of(challenge, chain, int(number))], at < MAX_EXPLAINED)
        for at, number in enumerate(challenge.chosen)
    ]
    environment = next((item.environment for item in (first, *replays.values()) if item.environment), None)
    value: dict[str, Any] = {
        "version": "pot/audit-result/v1",
        "precommit_sha256": precommit.sha256(),
        "transcript_sha256": transcript.sha256(),
        "challenge": challenge.model_dump(mode="json"),
        "replays": units,
        "datasets": same,
        "init": init,
        "points": _points([replays[key] for key in sorted(replays)]),
        "environment_sha256": environment_sha256(environment if environment is not None else capture()),
        "isolation": first.isolation,
    }
    if differ:
        value["datasets_differ"] = differ
    if detail:
        value["init_detail"] = detail[:MAX_DETAIL]
    if seed_nonce is not None:
        value["seed_nonce"] = seed_nonce.model_dump(mode="json")
    return AuditResult.from_value(value, what="audit result")


def _segment_of(challenge: Challenge, chain: ChainResult, number: int) -> int:
    """The segment that holds a chosen unit; both count from 1."""
    if challenge.unit == "segment":
        return number
    return bisect_left(chain.segments, number, key=lambda segment: segment.last) + 1


def _replay_chosen(
    challenge: Challenge, chain: ChainResult, replayer: Replayer, progress: Progress | None, workers: int
) -> tuple[dict[int, Replay], Replay]:
    """The replays by segment, and the one that regenerates W_0."""
    wanted = sorted({_segment_of(challenge, chain, int(number)) for number in challenge.chosen})
    done = 0
    replays: dict[int, Replay] = {}
    with ThreadPoolExecutor(workers) as pool:  # threads only wait for the programs that they start
        jobs = {pool.submit(replayer.segment, chain.segments[index - 1]): index for index in wanted}
        if 1 not in wanted:
            jobs[pool.submit(replayer.initial, chain.initial)] = 0
        for job in as_completed(jobs):
            replays[jobs[job]] = job.result()
            done += 1
            if progress is not None:
                progress("replaying segments", done, len(jobs))
    initial = replays.pop(0) if 0 in replays else replays[1]
    return replays, initial


def _datasets(
    run_dir: Path, precommit: Precommit, replayer: Replayer, progress: Progress | None
) -> tuple[list[str], list[str]]:
    """Ids of the commitments whose both roots the auditor's own files give, and of those whose roots they do not."""
    from pot.data.commit import commit, how_read

    same: list[str] = []
    differ: list[str] = []
    for number, item in enumerate(precommit.data):
        if progress is not None:
            progress("recomputing roots", number, len(precommit.data))
        files = [file for file in precommit.program.data_files if file.dataset == item.name]
        files.sort(key=lambda file: int(file.shard or "0"))
        paths = [replayer.inputs[file.path] for file in files if file.path in replayer.inputs]
        document = _document(run_dir, item.name, item.commitment_sha256)
        if not paths or len(paths) != len(files) or document is None or document.hiding is not None:
            continue  # not recomputed (hidden ones need their key: pot audit data): neither the same nor different
        try:
            found = commit(paths, item.view, "training", **how_read(document)).commitment
        except MissingExtra:
            raise  # this machine lacks a reader: that says nothing about the data
        except PotError:  # the committed files do not read as records of the committed view
            differ.append(item.commitment_sha256)
            continue
        roots = (found.records.count, found.records.root_blake3, found.set.root_blake3)
        agree = roots == (item.records, item.records_root_blake3, item.set_root_blake3)
        (same if agree else differ).append(item.commitment_sha256)
    return same, differ


def _document(run_dir: Path, name: str, sha256: str) -> DatasetCommitment | None:
    """The run's copy of a commitment, which says how the data was read; None where it is not the committed one."""
    path = run_dir / COMMITMENTS_FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    document = DatasetCommitment.from_bytes(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path))
    return document if document.sha256() == sha256 else None


def _init(
    first: Replay, chain: ChainResult, precommit: Precommit
) -> tuple[Literal["MATCH", "MISMATCH", "NOT_CHECKED"], str]:
    if first.outcome == "MISMATCH" and first.initial is None:
        return "MISMATCH", first.detail
    if first.initial is None or chain.initial is None:
        return "NOT_CHECKED", first.detail
    committed = chain.initial.components
    if first.initial == committed:
        return "MATCH", ""
    names = sorted(committed.keys() | first.initial.keys())
    wrong = [name for name in names if committed.get(name) != first.initial.get(name)]
    detail = f"the regenerated initial state differs in: {', '.join(wrong)[:200]}"
    foreign = differences(precommit.environment, first.environment or {}) if precommit.semantics == "float" else []
    if foreign:
        return "NOT_CHECKED", f"{detail}; another environment, first {foreign[0]}"
    return "MISMATCH", detail


def _points(replays: Sequence[Replay]) -> PointsOutcome:
    found = {replay.points for replay in replays}
    if "MISMATCH" in found:
        return "MISMATCH"
    return "MATCH" if found == {"MATCH"} else "NOT_CHECKED"


def _unit(number: str, replay: Replay, explained: bool) -> dict[str, str]:
    unit = {"unit_number": number, "outcome": replay.outcome}
    if replay.detail and explained:
        unit["detail"] = replay.detail[:MAX_DETAIL]
    return unit
