"""Making openings of a run's points: of its first and last state, and of the batches of chosen steps.

Spec: `specs/openings.md`. The blinds of a state's or a batch's point follow from the run's
secret; those that are given away tell nothing of the others. A batch's opening gives its records away.

Shows / does not show: see `pot.zk.opening_verify`, which holds the checks.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from pot.canonical import canonical_bytes
from pot.commitments.dataset import NEEDS, DatasetCommitment
from pot.commitments.merkle import LeafTree
from pot.errors import Refused, UsageError
from pot.zk.circuits.field import encode
from pot.zk.circuits.layout import Layout
from pot.zk.circuits.packing import blinds_of
from pot.zk.opening_verify import BatchOpening, OpenedRecord, StateOpening

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pot.zk.kit import VerifyingKit
    from pot.zk.runs.rewind import Records

__all__ = ["CommittedRecords", "open_batch", "open_state"]


class CommittedRecords:
    """The records of one of the run's datasets, digested again, so that their paths can be given."""

    def __init__(self, commitment: DatasetCommitment, records: Records) -> None:
        """Raises `UsageError` for a view that opened records cannot be compared under, `Refused` for other data."""
        from pot.data.digest import content_batches, digest_batches
        from pot.data.readers import dataset_records
        from pot.data.views import view_named

        view = view_named(commitment.view)
        if view.gram or commitment.hiding is not None:
            raise UsageError(f"opened records cannot be compared under view {view.name} or hidden digests")
        fields = {str(k): v for k, v in (commitment.reading.fields or {}).items()} if commitment.reading else {}
        reader = dataset_records(records, view.needs, fields)
        parts = [part for _, _, _, part in digest_batches(content_batches(reader, view), view, "training", None)]
        digests: NDArray[np.uint8] = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 32)
        self.commitment, self.records, self._tree = commitment, records, LeafTree(digests)
        if (str(len(digests)), self._tree.root.hex()) != (commitment.records.count, commitment.records.root_blake3):
            raise Refused("the records are not those of the run's dataset commitment: another root")

    def opened(self, place: int, read: Collection[str]) -> OpenedRecord:
        """Record `place` with its path, and of its fields those that the view sees and those that are `read`."""
        value = self.records[place]
        more = self.commitment.reading.fields if self.commitment.reading is not None else None
        wanted = {*read, self.commitment.source_field, *(more or {}).values()}
        if NEEDS.get(self.commitment.view) != "object":
            value = {name: part for name, part in value.items() if name in wanted}
        path = [sibling.hex() for sibling in self._tree.inclusion_path(place)]
        return OpenedRecord(record_base64=base64.b64encode(canonical_bytes(dict(value))).decode(), path=path)


def open_state(
    kit: VerifyingKit, *, secret: bytes, precommit_sha256: str, number: int, model_sha256: str,
    rest_sha256: str | None,
) -> StateOpening:  # fmt: skip
    """Open the point of the state after step `number`, whose tensors these files hold."""
    return StateOpening(
        version="pot/state-opening/v1",
        precommit_sha256=precommit_sha256,
        circuit_sha256=kit.circuit.sha256(),
        step=str(number),
        model_sha256=model_sha256,
        rest_sha256=rest_sha256,
        blinds=_blinds(kit.layout, secret, "state", number),
    )


def open_batch(
    kit: VerifyingKit, *, secret: bytes, precommit_sha256: str, number: int, indices: Sequence[int],
    datasets: Sequence[CommittedRecords],
) -> BatchOpening:  # fmt: skip
    """Open the point of the batch of step `number`: it holds the records with these numbers, for all to read.

    `datasets`: all of the run's, in order. Raises `UsageError` for a number beyond them.
    """
    read = kit.family.field_names
    return BatchOpening(
        version="pot/batch-opening/v1",
        precommit_sha256=precommit_sha256,
        circuit_sha256=kit.circuit.sha256(),
        step=str(number),
        records=[_record(datasets, index, read) for index in indices],
        blinds=_blinds(kit.layout, secret, "batch", number),
    )


def _record(datasets: Sequence[CommittedRecords], index: int, read: Collection[str]) -> OpenedRecord:
    place = index
    for dataset in datasets:
        if place < len(dataset.records):
            return dataset.opened(place, read)
        place -= len(dataset.records)
    raise UsageError(f"record {index} is beyond the data that was given; give all of the run's data")


def _blinds(layout: Layout, secret: bytes, label: Literal["state", "batch"], number: int) -> list[str]:
    return [encode(vector).hex() for vector in blinds_of(layout, secret, label, number)]
