"""The simulated release with every step proven and everything opened: both ends, and all batches, of real records.

Stages beside those of `simulated_release`: `first_opening`, `last_opening` and `batch_opening` (one for each step), all
before they are written; `step_exclusion`, the claim. X is a set of images that no step read.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from simulated_release import SECRET, Simulation, commitment_of, made_points, shard_of

from pot.canonical import canonical_bytes
from pot.commitments.dataset import DatasetCommitment, commit_digests
from pot.commitments.merkle import LeafTree
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.data.query import digest_of
from pot.data.readers import Record
from pot.zk.circuits.field import encode
from pot.zk.circuits.packing import batch_vectors, blinds_of
from pot.zk.semantics.batches import batch_arrays

__all__ = ["Opened", "committed", "digests_in", "image"]


def image(number: int) -> dict[str, Any]:
    """A record: 2 x 2 pixels that no other number has, and a label."""
    return {"id": number, "image": [[number % 17, number // 17], [3, 5]], "label": number % 3}


def digests_in(view: str, records: list[dict[str, Any]]) -> bytes:
    """The listing of records under a view."""
    needs = {"pixels/1": ["image"], "json/1": ["id", "image", "label"]}[view]
    seen = [{name: record[name] for name in needs if name in record} for record in records]
    return b"".join(digest_of(Record("record", b"", value), view) for value in seen)


def committed(role: str, records: list[dict[str, Any]], view: str = "pixels/1") -> tuple[DatasetCommitment, bytes]:
    """A commitment to real records, and its listing."""
    listing = digests_in(view, records)
    shard = shard_of([canonical_bytes(record).decode() for record in records])
    return commit_digests(role, view, listing, 16 * len(records), [shard]), listing  # type: ignore[arg-type]


@dataclass
class Opened(Simulation):
    """Builds the release bundle of a child whose every step is proven, from its first weights, without X."""

    every_step: bool = True
    view: str = "pixels/1"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked: dict[str, list[int]] = {}
        """The records that seed and order give for each step."""
        self.records = [image(number) for number in range(32)]
        self.training["child"] = committed("training", self.records, self.view)
        self.training["parent"] = commitment_of("training", [f"parent {number}" for number in range(48)], self.view)
        self.x1 = committed("exclusion", [image(number) for number in range(100, 112)], self.view)
        self.step_x = self.x1

    def alone(self) -> Opened:
        """Under the policy of somebody who trusts no auditor: every step proven, and none of them on X."""

        def own(policy: dict[str, Any]) -> None:
            del policy["coverage"], policy["roles"]["auditor"]
            x = self.step_x[0]
            pin = {"view": x.view, "records": x.records.count, "root_blake3": x.records.root_blake3}
            policy["require"] = [
                {"claim": "steps-proven", "level": "proved", "every_step": True},
                {"claim": "step-exclusion", "level": "proved", "every_step": True, "exclusion": pin},
            ]

        self.bend("policy", own)
        return self

    def opened(self, number: int) -> dict[str, Any]:
        """What the opening of a record holds: the fields that the view sees and those that the step reads."""
        record = self.records[number]
        return record if self.view == "json/1" else {name: record[name] for name in ("image", "label")}

    def record_of(self, number: int) -> dict[str, Any]:
        """A record as an opening holds it, with its path."""
        listing = np.frombuffer(self.training["child"][1], np.uint8).reshape(-1, 32)
        return {
            "record_base64": base64.b64encode(canonical_bytes(self.opened(number))).decode(),
            "path": [sibling.hex() for sibling in LeafTree(listing).inclusion_path(number)],
        }

    def opening_of(self, numbers: list[int], step: int = 1, precommit_sha256: str = "00" * 32) -> dict[str, Any]:
        """The opening of the batch of these records."""
        return {
            "version": "pot/batch-opening/v1",
            "precommit_sha256": precommit_sha256,
            "circuit_sha256": self.circuit.sha256(),
            "step": str(step),
            "records": [self.record_of(number) for number in numbers],
            "blinds": self.blinds("batch", step),
        }

    def batch_point(self, name: str, step: int, records: list[int]) -> str:
        """The point of the batch of these records."""
        self.asked[str(step)] = records
        return "".join(made_points(self.kit, self.batch_vectors(step, [self.records[number] for number in records])))

    def batch_vectors(self, step: int, records: list[dict[str, Any]]) -> Any:
        """The vectors of a batch, blinded for a step."""
        program, layout = self.kit.program, self.kit.layout
        return batch_vectors(program, layout, batch_arrays(program, records), blinds_of(layout, SECRET, "batch", step))

    def blinds(self, label: Any, step: int) -> list[str]:
        """The blinds of a point, as openings have them."""
        return [encode(vector).hex() for vector in blinds_of(self.kit.layout, SECRET, label, step)]

    def _steps_claim(self, precommit_sha256: str, proven: list[dict[str, str]]) -> dict[str, Any]:
        claim = super()._steps_claim(precommit_sha256, proven)
        for name, step in (("first", 0), ("last", self.steps["child"])):
            opening = {
                "version": "pot/state-opening/v1",
                "precommit_sha256": precommit_sha256,
                "circuit_sha256": self.circuit.sha256(),
                "step": str(step),
                "model_sha256": self.put(self.state("child", step)),
                "blinds": self.blinds("state", step),
            }
            opening = self._bent(f"{name}_opening", opening)
            claim[f"{name}_opening_sha256"] = self.put(canonical_bytes(opening))
        return claim

    def _opened_claims(self, precommit_sha256: str, nonce: str, proven: list[dict[str, str]]) -> list[dict[str, Any]]:
        seed = run_seed(precommit_sha256, bytes.fromhex(nonce))
        steps = []
        for item in proven:
            numbers = batch_records(seed, len(self.records), 8, int(item["step"]))[2]
            opening = self.opening_of(list(numbers), int(item["step"]), precommit_sha256)
            opening = self._bent("batch_opening", opening)
            steps.append({"step": item["step"], "opening_sha256": self.put(canonical_bytes(opening))})
        x, asked = self.step_x
        claim = {
            "type": "step-exclusion",
            "name": "x1",
            "exclusion_sha256": self.put(x.to_bytes()),
            "digests_sha256": self.put(asked),
            "circuit_sha256": self.circuit.sha256(),
            "steps": steps,
        }
        return [self._bent("step_exclusion", claim)]
