"""Back to the inputs of a step: from the checkpoint before it, through the exact steps in between.

Spec: `specs/step-proof.md`, "Integer training". Proving a challenged step needs the state before it and its batch; both
follow from the run's checkpoints, its committed order and its data, whoever does it.

Shows: nothing; the points of the step proof are compared with the transcript's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pot.canonical import read_file
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.errors import Malformed, Refused, UsageError
from pot.recording.chain import ChainResult
from pot.recording.precommit import Precommit, total_records
from pot.recording.state import MAX_STATE_BYTES, check_files, checkpoint_name
from pot.recording.transcript import Points, StartEvent, Transcript
from pot.zk.exact import step
from pot.zk.spec import CircuitSpec
from pot.zk.training import StepInputs, weights_from_integers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = ["Records", "features_and_labels", "points_of", "step_inputs"]


class Records(Protocol):
    """Map-style access to records in commitment order, such as `pot.data.readers.RecordDataset`."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Record `index`, from 0."""


def features_and_labels(spec: CircuitSpec, records: Sequence[Mapping[str, Any]]) -> tuple[Ints, Ints]:
    """The circuit's batch of these records: `image` (rows of integers) flattened, and `label`.

    Returns int64 (records, inputs) and (records,). Raises `Malformed` for records of another form; ranges are checked
    by the step itself.
    """
    import numpy as np

    features = np.zeros((len(records), spec.inputs), np.int64)
    labels = np.zeros(len(records), np.int64)
    for at, record in enumerate(records):
        image, label = (record.get("image"), record.get("label")) if isinstance(record, Mapping) else (None, None)
        if not isinstance(image, list) or not all(isinstance(row, list) for row in image) or type(label) is not int:
            raise Malformed("a record holds no image (rows of integers) with a label (an integer)")
        pixels = [pixel for row in image for pixel in row]
        if len(pixels) != spec.inputs or not all(type(pixel) is int and 0 <= pixel < 1 << 16 for pixel in pixels):
            raise Malformed(f"a record's image is not {spec.inputs} small integers")
        if not 0 <= label < spec.outputs:
            raise Malformed(f"a record's label is not between 0 and {spec.outputs - 1}")
        features[at] = pixels
        labels[at] = label
    return features, labels


def points_of(chain: ChainResult, number: int) -> Points:
    """The committed points of step `number` (from 1). Raises `UsageError` where the transcript has none."""
    for segment in chain.segments:
        if segment.first <= number <= segment.last:
            points = segment.steps[number - segment.first].points
            if points is None:
                raise UsageError(f"step {number} has no points in the transcript; only exact runs can be proven")
            return points
    raise UsageError(f"step {number} is not in the transcript; it has {_last(chain)} steps")


def step_inputs(
    run_dir: Path,
    precommit: Precommit,
    transcript: Transcript,
    chain: ChainResult,
    spec: CircuitSpec,
    numbers: Collection[int],
    records: Records,
) -> Iterator[StepInputs]:
    """The inputs of the named steps (from 1), ascending; each segment is entered at its checkpoint, once.

    Raises `UsageError` (no such step, other data), `Refused` (a checkpoint's files differ), `Malformed`, `RangeLeft`.
    """
    start = transcript.events[0]
    if precommit.semantics != "exact" or not isinstance(start, StartEvent):
        raise UsageError(f"{run_dir}: only runs with exact semantics have steps that can be proven")
    if len(records) != total_records(precommit):
        raise UsageError(f"the data holds {len(records)} records, the run committed to {total_records(precommit)}")
    seed = run_seed(precommit.sha256(), bytes.fromhex(start.nonce))
    wanted = set(numbers)
    absent = sorted(number for number in wanted if not 1 <= number <= _last(chain))
    if absent:
        raise UsageError(f"step {absent[0]} is not in the transcript; it has {_last(chain)} steps")
    for segment in chain.segments:
        chosen = {number for number in wanted if segment.first <= number <= segment.last}
        if not chosen:
            continue
        check_files(run_dir, segment.start_state.files)
        path = run_dir / checkpoint_name(segment.first - 1) / "model.safetensors"
        weights = weights_from_integers(read_file(path, limit=MAX_STATE_BYTES), what=str(path))
        for number in range(segment.first, max(chosen) + 1):
            batch = batch_records(seed, len(records), int(precommit.order.batch), number)[2]
            features, labels = features_and_labels(spec, [records[index] for index in batch])
            if number in chosen:
                yield StepInputs(number, weights, features, labels)
            weights = step(spec, weights, features, labels).weights


def _last(chain: ChainResult) -> int:
    if not chain.segments:
        raise Refused("the transcript has no complete segment")
    return chain.segments[-1].last
