"""The memorization test: did the loss of a segment's claimed records fall more than that of records not trained on?

Choi, Shavit and Duvenaud, "Tools for verifying neural models' training data" (2023), with two changes. Records are
compared only with those of like loss at the segment's start (`strata`), so that records which any training
makes easier gain nothing by it. And they are drawn by a nonce after the transcript is fixed, from a held-out pool or
from committed records that no step had taken yet; these differ from the claimed ones by the seed's order alone.

Spec: `specs/hints.md`, "Memorization test".

Shows: how the losses of an auditor's own function moved over the committed states. Does not show: that nothing else was
trained on, or that a record was not; a test of this kind is evidence, never proof, and never lifts a level.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from pot.audit.statistics.hints import MAX_SEGMENTS, MIN_COMPARED, MIN_SUSPECTED, Hint, overall
from pot.audit.statistics.mann_whitney import decimal
from pot.audit.statistics.records import Pool, RunRecords, draw
from pot.audit.statistics.strata import Comparison, compare, curve
from pot.canonical import Hex32, canonical_bytes
from pot.errors import Malformed, UsageError
from pot.recording.checking.chain import ChainResult, Segment
from pot.recording.checking.finished import load_run
from pot.recording.state import check_files, checkpoint_name
from pot.recording.transcript import CheckpointEvent

__all__ = ["Losses", "Progress", "losses_at", "memorization"]

STEP_RECORDS: Final = 32  # records that are taken of one step
MIN_STEP: Final = 8  # fewer records of a step say nothing about it alone
_MOVED: Final = 4  # steps of the last 1/4 of a segment are not judged alone: momentum has hardly begun to apply them
_MAX_RECORDS: Final = 4096
_MAX_SCANNED: Final = 1024

Losses = Callable[[Path, Sequence[Any]], Sequence[float]]
"""The auditor's own function: a checkpoint's folder and records -> the loss of each record under that model."""
Progress = Callable[[str, int, int], None]

_Key = tuple[str, int]


def losses_at(run_dir: Path, event: CheckpointEvent, records: Sequence[Any], losses: Losses) -> list[float]:
    """The losses of `records` at a committed state, whose files are checked first.

    Raises `Refused` for files that are not the committed ones, `UsageError` for a function that does not give one
    finite number a record.
    """
    check_files(run_dir, event.files)
    found = losses(run_dir / checkpoint_name(int(event.step)), records)
    try:
        numbers = [float(value) for value in found]
    except (TypeError, ValueError):
        raise UsageError("losses(): must give a list with one number for each record") from None
    if len(numbers) != len(records) or not all(math.isfinite(value) for value in numbers):
        raise UsageError(
            f"losses(): gave {len(numbers)} numbers for {len(records)} records at step {event.step}; each record needs"
            " a finite one"
        )
    return numbers


def memorization(
    run_dir: Path,
    losses: Losses,
    data: Sequence[Path],
    *,
    held_out: Sequence[Path] = (),
    suspected: Sequence[Path] = (),
    nonce: str | None = None,
    segments: Sequence[int] = (),
    sample: int = 8,
    records: int = 256,
    evaluate_sha256: str | None = None,
    progress: Progress | None = None,
) -> Hint:
    """Test a finished run and give the hint.

    `data`: files or folders with what the program reads. `held_out`: the pool; without one, claimed records are
    compared with committed ones that no step had taken yet. `suspected`: ask for these records instead, in every
    segment. `nonce`: 64 hex digits, made after the transcript; None: fresh ones. `segments`: numbers from 1; none:
    `sample` drawn ones. `records`: how many of each group. Raises `UsageError`, `Malformed`, `Refused`,
    `EnvironmentFailure`.
    """
    _check_sizes(sample, records, segments)
    precommit, transcript, chain = load_run(run_dir)
    chosen = nonce if nonce is not None else secrets.token_hex(32)
    if len(chosen) != 64 or not set(chosen) <= set("0123456789abcdef"):
        raise Malformed("nonce: must be 64 lowercase hex digits")
    if suspected and not held_out:
        raise UsageError("suspected records are compared with a held-out pool; give one")
    plan = _Plan(
        RunRecords(run_dir, precommit, transcript, data), transcript.sha256(), chosen, records, held_out, suspected
    )
    found = _compare_all(run_dir, plan, plan.segments(chain, segments, sample), losses, progress)
    tries, fewest = (len(found), MIN_SUSPECTED) if suspected else (1, MIN_COMPARED)
    listed = sorted(found, key=lambda item: (item[1].test.p, -item[1].test.auc)) if suspected else found
    listed = listed[:MAX_SEGMENTS]
    statuses = [comparison.status(tries, fewest) for _, comparison in listed]
    value: dict[str, Any] = {
        "precommit_sha256": precommit.sha256(),
        "transcript_sha256": transcript.sha256(),
        "nonce": chosen,
        **plan.described(),
        "tested": str(len(found)),
        "mean_auc": decimal(sum((item.test.auc for _, item in found), Fraction()) / len(found)),
        "segments": [_finding(segment, item, tries, fewest) for segment, item in listed],
        "roc": curve([item for _, item in (listed[:1] if suspected else found)]),
    }
    if evaluate_sha256 is not None:
        value["evaluate_sha256"] = evaluate_sha256
    status = overall("suspected" if suspected else "claimed", statuses)
    hint = {"version": "pot/hint/v1", "kind": "memorization", "status": status, "memorization": value}
    return Hint.from_bytes(canonical_bytes(hint), what="hint")


def _check_sizes(sample: int, records: int, segments: Sequence[int]) -> None:
    if not 1 <= sample <= MAX_SEGMENTS or len(segments) > MAX_SEGMENTS:
        raise UsageError(f"memorization: 1 to {MAX_SEGMENTS} segments can be tested in one go")
    if not 2 <= records <= _MAX_RECORDS:
        raise UsageError(f"memorization: 2 to {_MAX_RECORDS} records can be compared, not {records}")


def _finding(segment: Segment, found: Comparison, tries: int, fewest: int) -> dict[str, str]:
    value = {
        "segment": str(segment.index),
        "first": str(segment.first),
        "last": str(segment.last),
        "claimed": str(found.test.first),
        "control": str(found.test.second),
        "strata": str(found.strata),
        "auc": decimal(found.test.auc),
        "raw_auc": decimal(found.raw_auc),
        "p": decimal(found.test.p),
        "method": found.test.method,
        "status": found.status(tries, fewest),
    }
    if found.steps is not None and found.silent is not None:
        value |= {"steps": str(found.steps), "silent": str(found.silent)}
    return value


class _Plan:
    """Which records are compared in which segment, all of it drawn from transcript and nonce."""

    def __init__(
        self,
        run: RunRecords,
        transcript_sha256: Hex32,
        nonce: str,
        count: int,
        held_out: Sequence[Path],
        suspected: Sequence[Path],
    ) -> None:
        self.run = run
        self._drawn = (transcript_sha256, nonce)
        self._count = count
        self._pool = self._suspects = None
        self._kept: list[int] = []
        if held_out:
            self._pool = Pool(held_out, run.view)
            known = run.digests()
            if suspected:
                self._suspects = Pool(suspected, run.view)
                known = known.union(self._suspects.digests)
            self._kept = self._pool.without(known)
            if len(self._kept) < 2:
                raise UsageError(
                    "held-out: the run committed to (almost) all of the pool; give records it did not have"
                )

    def segments(self, chain: ChainResult, named: Sequence[int], sample: int) -> list[Segment]:
        """The segments to test.

        Drawn ones leave out the one that starts from W_0, where all losses are alike, so that strata tell nothing
        apart; and for unseen records what lies behind the first epoch.
        """
        wrong = next((number for number in named if not 1 <= number <= len(chain.segments)), None)
        if wrong is not None:
            raise UsageError(f"segment {wrong}: the run has segments 1 to {len(chain.segments)}")
        if named:
            return [chain.segments[number - 1] for number in sorted(set(named))]
        if self._suspects is not None:
            if len(chain.segments) > _MAX_SCANNED:
                raise UsageError(f"{len(chain.segments)} segments are too many to scan; name at most {MAX_SEGMENTS}")
            return list(chain.segments)
        if self._pool is None:
            fit = [segment for segment in chain.segments if self.run.unseen(segment.last)[0] >= self._count]
        else:
            fit = list(chain.segments[1:]) or list(chain.segments)
        if not fit:
            raise UsageError("no segment leaves enough records unseen; give a held-out pool, or compare fewer records")
        return [fit[at] for at in sorted(draw(*self._drawn, "segments", len(fit), sample))]

    def claimed(self, segment: Segment) -> tuple[list[_Key], list[int]]:
        """The records to test in a segment, and for each the step that it is judged with (0: none)."""
        if self._suspects is not None:
            taken = draw(*self._drawn, "suspected", self._suspects.count, self._count)
            return [("suspected", number) for number in taken], [0] * len(taken)
        size = min(self.run.batch, STEP_RECORDS)
        steps = segment.last - segment.first + 1
        found: dict[int, int] = {}
        for at in draw(*self._drawn, f"steps/{segment.index}", steps, -(-self._count // size)):
            batch = self.run.step(segment.first + at)
            alone = len(batch) >= MIN_STEP and (steps - at) * _MOVED > steps
            for place in draw(*self._drawn, f"batch/{segment.first + at}", len(batch), size):
                found.setdefault(batch[place], segment.first + at if alone else 0)
        kept = list(found.items())[: self._count]
        return [("committed", number) for number, _ in kept], [step for _, step in kept]

    def control(self, segment: Segment) -> list[_Key]:
        """What they are compared with."""
        if self._pool is not None:
            return [("pool", self._kept[at]) for at in draw(*self._drawn, "held-out", len(self._kept), self._count)]
        left, first = self.run.unseen(segment.last)
        if left < 2:
            raise UsageError(f"segment {segment.index}: every record was taken before its end; give a held-out pool")
        places = draw(*self._drawn, f"unseen/{segment.index}", left, self._count)
        return [("committed", self.run.at(first + place)) for place in places]

    def read(self, keys: set[_Key]) -> dict[_Key, Any]:
        """The records themselves."""
        sources = {"committed": self.run, "pool": self._pool, "suspected": self._suspects}
        found: dict[_Key, Any] = {}
        for name, source in sources.items():
            wanted = {number for kind, number in keys if kind == name}
            if source is not None and wanted:
                found.update(((name, number), value) for number, value in source.read(wanted).items())
        return found

    def described(self) -> dict[str, str]:
        """Where the records came from, as a hint tells it."""
        value = {
            "question": "claimed" if self._suspects is None else "suspected",
            "control": "unseen" if self._pool is None else "held-out",
            "view": self.run.view,
        }
        if self._pool is not None:
            value["pool_records"] = str(self._pool.count)
            value["pool_root_blake3"] = self._pool.root
            value["overlap"] = str(self._pool.count - len(self._kept))
        if self._suspects is not None:
            value["suspected_root_blake3"] = self._suspects.root
        return value


def _compare_all(
    run_dir: Path, plan: _Plan, segments: Sequence[Segment], losses: Losses, progress: Progress | None
) -> list[tuple[Segment, Comparison]]:
    """Evaluate every state once, with all records that are asked for there, then compare."""
    groups = {segment.index: (plan.claimed(segment), plan.control(segment)) for segment in segments}
    wanted: dict[str, set[_Key]] = {}
    states: dict[str, CheckpointEvent] = {}
    for segment in segments:
        (claimed, _), control = groups[segment.index]
        for state in (segment.start_state, segment.end_state):
            states[state.step] = state
            wanted.setdefault(state.step, set()).update(claimed, control)
    records = plan.read(set().union(*wanted.values()))
    found: dict[str, dict[_Key, float]] = {}
    for number, (step, keys) in enumerate(wanted.items(), 1):
        ordered = sorted(keys)
        numbers = losses_at(run_dir, states[step], [records[key] for key in ordered], losses)
        found[step] = dict(zip(ordered, numbers, strict=True))
        if progress is not None:
            progress("computing losses", number, len(wanted))
    compared = []
    for segment in segments:
        (claimed, steps), control = groups[segment.index]
        before, after = found[segment.start_state.step], found[segment.end_state.step]
        pairs = [[(before[key], after[key]) for key in keys] for keys in (claimed, control)]
        compared.append((segment, compare(pairs[0], pairs[1], steps)))
    return compared
