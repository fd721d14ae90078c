"""Back to the inputs of a step: from the checkpoint before it, through the exact steps in between.

Spec: `specs/step-proof.md`, "Integer training". Proving a challenged step needs the state before it and its batch; both
follow from the run's checkpoints, its committed order and its data, whoever does it. Of a step that was taken in floats
(or by ezkl's arithmetic, family auto) the states are those that the trainer kept.

Shows: nothing; the points of the step proof are compared with the transcript's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.errors import Refused, UsageError
from pot.recording.checking.chain import ChainResult
from pot.recording.precommit import Precommit, total_records
from pot.recording.state import check_files, checkpoint_name
from pot.recording.transcript import Points, StartEvent, Transcript
from pot.zk.family import Step, family_of
from pot.zk.runs.kept import read_kept
from pot.zk.runs.segment import StepInputs
from pot.zk.semantics.exact import run
from pot.zk.semantics.program import Program
from pot.zk.training import read_state

if TYPE_CHECKING:
    from pot.recording.checking.chain import Segment

__all__ = ["Records", "points_of", "step_inputs"]


class Records(Protocol):
    """Map-style access to records in commitment order, such as `pot.data.readers.RecordDataset`."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Record `index`, from 0."""


def points_of(chain: ChainResult, number: int) -> Points:
    """The committed points of step `number` (from 1). Raises `UsageError` where the transcript has none."""
    for segment in chain.segments:
        if segment.first <= number <= segment.last:
            points = segment.steps[number - segment.first].points
            if points is None:
                raise UsageError(f"step {number} has no points in the transcript; only steps with points can be proven")
            return points
    raise UsageError(f"step {number} is not in the transcript; it has {_last(chain)} steps")


def step_inputs(
    run_dir: Path,
    precommit: Precommit,
    transcript: Transcript,
    chain: ChainResult,
    program: Step,
    numbers: Collection[int],
    records: Records,
    *,
    kept: Path | None = None,
) -> Iterator[StepInputs]:
    """The inputs of the named steps (from 1), ascending; segments of an exact run are entered at checkpoints, once.

    `kept`: for a run with float semantics, the folder in which its trainer kept the states. Raises `UsageError` (no
    such step, other data), `Refused` (a checkpoint's files differ, a float step is too far off), `Malformed`,
    `RangeLeft`.
    """
    start = transcript.events[0]
    exact = precommit.semantics == "exact" and isinstance(program, Program)
    if not isinstance(start, StartEvent) or (not exact and kept is None):
        raise UsageError(
            f"{run_dir}: a run with exact semantics is needed, or the folder in which a float run's states were kept"
        )
    if len(records) != total_records(precommit):
        raise UsageError(f"the data holds {len(records)} records, the run committed to {total_records(precommit)}")
    seed = run_seed(precommit.sha256(), bytes.fromhex(start.nonce))
    wanted = set(numbers)
    absent = sorted(number for number in wanted if not 1 <= number <= _last(chain))
    if absent:
        raise UsageError(f"step {absent[0]} is not in the transcript; it has {_last(chain)} steps")

    def batch(number: int) -> Mapping[str, Any]:
        chosen = batch_records(seed, len(records), int(precommit.order.batch), number)[2]
        return family.batch_arrays([records[index] for index in chosen])

    family = family_of(program)
    if exact and isinstance(program, Program):
        for segment in chain.segments:
            chosen = {number for number in wanted if segment.first <= number <= segment.last}
            if chosen:
                yield from _exact(run_dir, segment, program, chosen, batch)
    elif kept is not None:
        for number in sorted(wanted):
            found = StepInputs(number, read_kept(kept, number - 1), batch(number), read_kept(kept, number))
            family.next_state(found.before, found.batch, found.after)
            yield found


def _exact(
    run_dir: Path, segment: Segment, program: Program, chosen: Collection[int], batch: Any
) -> Iterator[StepInputs]:
    check_files(run_dir, segment.start_state.files)
    state: Mapping[str, Any] = read_state(program, run_dir / checkpoint_name(segment.first - 1))
    for number in range(segment.first, max(chosen) + 1):
        arrays = batch(number)
        if number in chosen:
            yield StepInputs(number, state, arrays)
        if number < max(chosen):
            state = run(program, state, arrays).next


def _last(chain: ChainResult) -> int:
    if not chain.segments:
        raise Refused("the transcript has no complete segment")
    return chain.segments[-1].last
