"""An audit: roots recomputed from the data, W_0 regenerated, the challenged segments re-executed; one result document.

Spec: `specs/transcript.md`, "Audit". The result says what this auditor's machine found; signed, it is the evidence that
lets others verify without data and without torch.

Shows: the outcome of every challenged unit, and which datasets' two roots were recomputed from the records.
Does not show: segments that were not chosen, beyond the challenge's arithmetic; nor that the auditor is honest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pot.audit.challenges.beacon import ChainInfo
from pot.audit.challenges.challenge import Challenge, check_challenge
from pot.audit.replaying.comparison import cut
from pot.audit.replaying.replay import PointsOutcome, Replay, Replayer
from pot.audit.replaying.sandbox import Limits
from pot.audit.replaying.spread import ReplayJob, RunPlace, replays
from pot.audit.replaying.tolerance import Tolerance
from pot.audit.result import MAX_DETAIL, MAX_EXPLAINED, MAX_HINTS, AuditResult, ReplayedUnit
from pot.audit.roots import recomputed
from pot.audit.salted import InnerDigests, inner_step, new_inner_digests, usable_digests
from pot.audit.screening.checks import Screening, screen
from pot.audit.statistics.hints import Hint
from pot.canonical import Document
from pot.distribute import check_cluster
from pot.errors import Refused, UsageError
from pot.recording.checking.chain import ChainResult, Segment
from pot.recording.checking.finished import load_run
from pot.recording.precommit import SeedNonce
from pot.recording.transcript import StartEvent

__all__ = ["SUSPICIOUS", "AuditResult", "Progress", "ReplayedUnit", "audit"]

SUSPICIOUS: Final = 5
"""Suspicious segments that are replayed besides the challenged ones, unless told otherwise."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many units are done, and how many there are."""


@dataclass(frozen=True)
class _Replayed:
    """The replays by segment, the one that regenerates W_0, and the segments nobody challenged, in their order."""

    segments: Mapping[int, Replay]
    first: Replay
    extra: Sequence[int]


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
    ray: str | None = None,
    screening: bool = True,
    suspicious: int = SUSPICIOUS,
    tolerance: bool = False,
    inner: Callable[[InnerDigests], None] | None = None,
    hints: Sequence[Hint] = (),
    beacon_chain: ChainInfo | None = None,
    undelivered: bool = False,
) -> AuditResult:
    """Answer `challenge` to the run: recompute roots from `data`, regenerate W_0, replay the chosen segments.

    `data`: files or folders with what the program reads, matched by SHA-256. `code`: the folder of its code.
    `seed_nonce`: the nonce document, if this auditor issued it. `hidden`: further folders that the replayed program
    must not see (the released model). `workers`: segments replayed at the same time; `ray`: address of a cluster
    instead, where all paths mean the same on every node. `screening`: look at all segments first, and replay up to
    `suspicious` more of those that look bent. `tolerance`: measure what is INCONCLUSIVE beside this machine's noise.
    `inner`: takes the private document of inner digests, to whose commitment the result then refers. `hints`: tests of
    this transcript, to be signed with the result. `beacon_chain`: that of the challenge, where it is not quicknet.
    `undelivered`: give a result, REFUSED, also where committed data or code is not among what was given.

    Raises `Refused` for a run, challenge or hint that does not hold, `UsageError` (data or code is not there),
    `EnvironmentFailure`.
    """
    if ray is not None:
        check_cluster(ray)
    precommit, transcript, chain = load_run(run_dir)
    names, sizes = (precommit.sha256(), transcript.sha256()), (len(chain.segments), int(precommit.steps))
    check_challenge(challenge, *names, *sizes, beacon_chain)
    _check_hints(hints, transcript.sha256())
    start = transcript.events[0]
    nonce = start.nonce if isinstance(start, StartEvent) else ""
    if seed_nonce is not None and (seed_nonce.precommit_sha256, seed_nonce.nonce) != (precommit.sha256(), nonce):
        raise Refused(f"{run_dir}: the run does not use the nonce that this auditor issued")
    paths = (tuple(path.resolve() for path in data), code.resolve(), tuple(path.resolve() for path in hidden))
    place = RunPlace(run_dir.resolve(), precommit.to_bytes(), nonce, paths[0], paths[1], limits or Limits(), paths[2])
    replayer = place.replayer()
    if replayer.undelivered is not None and not undelivered:
        raise UsageError(
            f"{run_dir}: nothing was replayed: {replayer.undelivered}; give it, or sign that the trainer did not"
            " deliver it by --sign-refusal"
        )
    same, differ = recomputed(run_dir, precommit, replayer, progress)
    screened = screen(run_dir, precommit, chain, progress) if screening else None
    steps = {} if inner is None else _inner_steps(transcript.sha256(), chain.segments)
    extra = _extra(challenge, chain, screened, suspicious)
    jobs = _jobs(challenge, chain, place, extra, screened, steps)
    found = _replay(jobs, replayer, extra, progress, workers, ray)
    init, detail = _init(found.first, chain, replayer)
    value: dict[str, Any] = {
        "version": "pot/audit-result/v1",
        "precommit_sha256": precommit.sha256(),
        "transcript_sha256": transcript.sha256(),
        "challenge": _json(challenge),
        "replays": _units(challenge, chain, found.segments),
        "datasets": same,
        "init": init,
        "points": _points([found.segments[key] for key in sorted(_challenged(challenge, chain))]),
        "environment_sha256": replayer.own.sha256(),
        "isolation": found.first.isolation,
    }
    optional = {
        "datasets_differ": differ,
        "init_detail": cut(detail, MAX_DETAIL),
        "seed_nonce": _json(seed_nonce),
        "extra": [
            _unit(str(_number(challenge, chain.segments[index - 1])), found.segments[index], at < MAX_EXPLAINED)
            for at, index in enumerate(found.extra)
        ],
        "screening": _json(screened),
        "tolerance": _json(_tolerance(replayer, chain, found, progress)) if tolerance else None,
        "inner_commitment": _inner(inner, transcript.sha256(), challenge.nonce, steps, found.segments),
        "hints": [_json(hint) for hint in hints],
    }
    value.update({name: item for name, item in optional.items() if item})
    return AuditResult.from_value(value, what="audit result")


def _json(document: Document | None) -> dict[str, Any] | None:
    return None if document is None else document.model_dump(mode="json", exclude_none=True)


def _check_hints(hints: Sequence[Hint], transcript_sha256: str) -> None:
    if len(hints) > MAX_HINTS:
        raise UsageError(f"{len(hints)} hints were given, a result holds at most {MAX_HINTS}")
    for hint in hints:
        if hint.transcript_sha256 != transcript_sha256:
            raise Refused(
                f"the hint is about the transcript {hint.transcript_sha256}, this run's is {transcript_sha256}"
            )


def _segment_of(challenge: Challenge, chain: ChainResult, number: int) -> int:
    """The segment that holds a chosen unit; both count from 1."""
    if challenge.unit == "segment":
        return number
    return bisect_left(chain.segments, number, key=lambda segment: segment.last) + 1


def _number(challenge: Challenge, segment: Segment) -> int:
    """The unit that stands for a segment that was not challenged."""
    return segment.index if challenge.unit == "segment" else segment.last


def _challenged(challenge: Challenge, chain: ChainResult) -> set[int]:
    return {_segment_of(challenge, chain, int(number)) for number in challenge.chosen}


def _extra(challenge: Challenge, chain: ChainResult, screened: Screening | None, most: int) -> list[int]:
    """Suspicious segments beside the challenged ones, most suspicious first."""
    if screened is None:
        return []
    challenged = _challenged(challenge, chain)
    found = [int(number) for number in screened.suspicious if int(number) not in challenged]
    return found[: max(0, most)]


def _jobs(
    challenge: Challenge,
    chain: ChainResult,
    place: RunPlace,
    extra: Sequence[int],
    screened: Screening | None,
    steps: Mapping[int, int],
) -> list[ReplayJob]:
    """What is replayed: suspicious segments first, as they come, then the other challenged ones, then W_0."""
    challenged = _challenged(challenge, chain)
    wanted = challenged | set(extra)
    suspicious = [int(number) for number in screened.suspicious] if screened is not None else []
    order = [number for number in suspicious if number in wanted]
    order += sorted(wanted.difference(order))
    jobs = [
        ReplayJob(place, chain.segments[index - 1], None, (steps[index],) if index in steps else ()) for index in order
    ]
    if 1 not in wanted:
        jobs.append(ReplayJob(place, None, chain.initial))
    return jobs


def _replay(
    jobs: Sequence[ReplayJob],
    replayer: Replayer,
    extra: Sequence[int],
    progress: Progress | None,
    workers: int,
    ray: str | None,
) -> _Replayed:
    found: dict[int, Replay] = {}
    with closing(replays(jobs, replayer, workers=workers, ray=ray)) as results:
        for job, replay in results:
            found[job.index] = replay
            if progress is not None:
                progress("replaying segments", len(found), len(jobs))
    first = found.pop(0) if 0 in found else found[1]
    return _Replayed(found, first, extra)


def _inner_steps(transcript_sha256: str, segments: Iterable[Segment]) -> dict[int, int]:
    steps = {segment.index: inner_step(transcript_sha256, segment) for segment in segments}
    return {index: step for index, step in steps.items() if step is not None}


def _inner(
    take: Callable[[InnerDigests], None] | None,
    transcript_sha256: str,
    nonce: str,
    steps: Mapping[int, int],
    segments: Mapping[int, Replay],
) -> str | None:
    """The commitment to the inner digests of what matched; the document itself goes to `take`.

    No digest of the transcript covers what the program says of these states: rubbish is left out.
    """
    if take is None:
        return None
    replayed = [(step, segments[index]) for index, step in steps.items() if index in segments]
    matched = [(step, replay.roots.get(step, {})) for step, replay in replayed if replay.outcome == "MATCH"]
    found = {step: usable_digests(said) for step, said in matched}
    states = {step: digests for step, digests in found.items() if digests}
    document = new_inner_digests(transcript_sha256, nonce, states)
    take(document)
    return document.commitment()


def _tolerance(replayer: Replayer, chain: ChainResult, found: _Replayed, progress: Progress | None) -> Tolerance | None:
    """Distances of the first INCONCLUSIVE segments; None where there are none."""
    from pot.audit.replaying.calibration import calibrate

    open_ones = sorted(index for index, replay in found.segments.items() if replay.outcome == "INCONCLUSIVE")
    if not open_ones:
        return None
    report = None if progress is None else lambda done, total: progress("measuring noise", done, total)
    return calibrate(replayer, [chain.segments[index - 1] for index in open_ones[:MAX_EXPLAINED]], report)


def _init(
    first: Replay, chain: ChainResult, replayer: Replayer
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
    detail = f"the regenerated initial state differs in: {cut(', '.join(wrong), 200)}"
    foreign = replayer.foreign(first.environment)
    if foreign:
        return "NOT_CHECKED", f"{detail}; another environment, first {foreign[0]}"
    return "MISMATCH", detail


def _points(replays: Sequence[Replay]) -> PointsOutcome:
    found = {replay.points for replay in replays}
    if "MISMATCH" in found:
        return "MISMATCH"
    return "MATCH" if found == {"MATCH"} else "NOT_CHECKED"


def _units(challenge: Challenge, chain: ChainResult, segments: Mapping[int, Replay]) -> list[dict[str, Any]]:
    return [
        _unit(number, segments[_segment_of(challenge, chain, int(number))], at < MAX_EXPLAINED)
        for at, number in enumerate(challenge.chosen)
    ]


def _unit(number: str, replay: Replay, explained: bool) -> dict[str, Any]:
    unit: dict[str, Any] = {"unit_number": number, "outcome": replay.outcome}
    if replay.detail and explained:
        unit["detail"] = cut(replay.detail, MAX_DETAIL)
    if replay.distances and explained:
        unit["distances"] = dict(replay.distances)
    return unit
