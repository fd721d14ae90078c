"""Calibration on the spot: this machine's own noise, and what the smallest forgery tried looks like on it.

Spec: `specs/transcript.md`, "Tolerance". A segment whose bits could not be compared is run again by the auditor: as it
is; in a second environment of this machine (other threads and, where the start state is loaded, the plainest
instruction set); and with one record of one batch exchanged, at the segment's last step and at its middle one.

Shows / does not show: see `pot.audit.replaying.tolerance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pot.audit.replaying.committed import distance_or_none
from pot.audit.replaying.replay import Replayer, Request
from pot.audit.replaying.tolerance import (
    Drift,
    SegmentTolerance,
    Tolerance,
    judge_segment,
    tolerance_document,
)
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.commitments.state import TensorEntry
from pot.errors import Malformed, PotError
from pot.recording.checking.chain import Segment
from pot.recording.precommit import total_records

__all__ = ["NOISE_FROM", "calibrate", "second_environment", "swaps"]

NOISE_FROM: Final = "this machine as it is, and with another number of threads and another instruction set"
_COMPONENT: Final = "model"
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PLAINEST: Final = "default"
_SLACK: Final = 1 << 20


def calibrate(
    replayer: Replayer, segments: Sequence[Segment], progress: Callable[[int, int], None] | None = None
) -> Tolerance:
    """Measure segments, in their order: up to four replays each, one after the other. `progress`: done, in all.

    What a replay does not give, for whatever reason, is absent from its segment's numbers.
    """
    drift = Drift()
    measured: list[SegmentTolerance] = []
    for number, segment in enumerate(sorted(segments, key=lambda item: item.index)):
        if progress is not None:
            progress(number, len(segments))
        measured.append(_measure(replayer, segment, drift))
    return tolerance_document(NOISE_FROM, measured, drift)


def _measure(replayer: Replayer, segment: Segment, drift: Drift) -> SegmentTolerance:
    start = replayer.tensors(segment.start_state, _COMPONENT)
    claimed = replayer.tensors(segment.end_state, _COMPONENT)
    if start is None or claimed is None:
        return judge_segment(segment.index, None, None, None)
    limit = 2 * sum(len(entry.data) for entry in claimed) + _SLACK
    own, environment = _end(replayer, segment, limit)
    if own is None:
        return judge_segment(segment.index, None, None, None)
    other, _ = _end(replayer, segment, limit, variables=second_environment(replayer, environment, segment))
    noise = distance_or_none(start, own, other)
    forged = [
        distance_or_none(start, own, _end(replayer, segment, limit, swap=swap)[0]) for swap in swaps(replayer, segment)
    ]
    forging = min((distance for distance in forged if distance is not None), default=None)
    found = judge_segment(segment.index, distance_or_none(start, claimed, own), noise, forging)
    try:
        drift.add(start, claimed, own, float(found.tolerance))
    except Malformed:  # element types without numbers: nothing was measured above either
        return found
    return found


def _end(
    replayer: Replayer,
    segment: Segment,
    limit: int,
    *,
    swap: tuple[int, int, int] | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[list[TensorEntry] | None, Mapping[str, Any]]:
    """The model after one replay, and the environment it had. None where the replay gave none."""
    request = Request(segment.first - 1, segment.last, segment.start_state, (), swap, variables or {})
    try:
        with replayer.produced(request) as produced:
            if not produced.complete():
                return None, {}
            return produced.tensors(_COMPONENT, limit), produced.environment or {}
    except (PotError, MemoryError, OSError):  # what it was to measure is not: the outcomes found so far stand
        return None, {}


def second_environment(replayer: Replayer, environment: Mapping[str, Any], segment: Segment) -> dict[str, str]:
    """Variables that make this machine compute the same in another way; `environment`: the first replay's."""
    torch, set_here = _section(environment, "torch"), _section(environment, "variables")
    threads = torch.get("threads") or set_here.get(_THREADS[0])
    chosen = dict.fromkeys(_THREADS, "2" if threads == "1" else "1")
    if segment.first > 1:  # it changes how random numbers are drawn, and with them a W_0 that the program makes itself
        plainest = str(torch.get("cpu_capability")).lower() == _PLAINEST
        chosen["ATEN_CPU_CAPABILITY"] = replayer.own.capability or _PLAINEST if plainest else _PLAINEST
    return chosen


def _section(environment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    bits = environment.get("bits")
    found = bits.get(name) if isinstance(bits, dict) else None
    return found if isinstance(found, dict) else {}


def swaps(replayer: Replayer, segment: Segment) -> list[tuple[int, int, int]]:
    """The exchanges that are tried: (step, place in the batch, another record). None where no seed fixes the order."""
    precommit = replayer.precommit
    size, batch = total_records(precommit), int(precommit.order.batch)
    if precommit.order.method != "feistel/1" or batch >= size:
        return []
    seed = run_seed(precommit.sha256(), bytes.fromhex(replayer.nonce))
    found = []
    for step in sorted({segment.last, (segment.first + segment.last) // 2}):
        records = batch_records(seed, size, batch, step)[2]
        taken = set(records)
        other = next(number % size for number in range(records[0] + 1, records[0] + size) if number % size not in taken)
        found.append((step, 0, other))
    return found
