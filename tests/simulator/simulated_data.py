"""Claims about data for the simulated release: other views of the same files, inclusions, compositions, data audits.

Everything is real but the records: views of invented records are digests of the view's name and the record.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from simulated_release import Simulation, commitment_of, data_files, shard_of

from attest.verdict.report import ClaimReport, Report
from pot.commitments.dataset import DatasetCommitment, Reading, Role, Shard, commit_digests
from pot.commitments.hashing import record_digest
from pot.commitments.hiding import Hiding
from pot.data.commit import Committed
from pot.data.composition import compose
from pot.data.composition_verify import Composition
from pot.data.exclude import Overlap, exclude
from pot.data.include import Missing, include

__all__ = [
    "OtherView", "add_composition", "add_inclusion", "claim_of", "data_audit", "in_view", "names_of", "pin_of",
    "see_through",
]  # fmt: skip

GRAM = "winnow50/1"


def names_of(model: str) -> list[str]:
    """The invented records that a model of the simulation is trained on, in order."""
    return [f"{model} {number}" for number in range({"parent": 48, "child": 32}[model])]


def in_view(
    role: Role,
    names: Sequence[str],
    view: str = GRAM,
    *,
    shards: Sequence[Shard] | None = None,
    reading: Reading | None = None,
    hiding: Hiding | None = None,
) -> Committed:
    """Invented records seen through a view: two keys a record for gram views, one digest for others."""
    digests = [record_digest(f"{view} {name}".encode()) for name in names]
    listing = b"".join(digests)
    if view == GRAM:
        listing = b"".join(struct.pack("<I", 2) for _ in names) + b"".join(digest[:16] for digest in digests)
    files = [shard_of(list(names))] if shards is None else list(shards)
    return Committed(
        commit_digests(role, view, listing, 16 * len(names), files, count=len(names), reading=reading, hiding=hiding),
        listing,
    )


@dataclass
class OtherView:
    """The exclusion of `x` through another view than the runs pre-committed, in both models."""

    simulation: Simulation
    training: dict[str, Committed]
    x: Committed
    audited: set[str] = field(default_factory=lambda: {"parent", "child"})

    def claims(self, name: str) -> list[dict[str, Any]]:
        """The claim of one model, with its objects."""
        training, put = self.training[name], self.simulation.put
        made = exclude(training, self.x)
        assert not isinstance(made, Overlap)
        put(training.commitment.to_bytes())
        return [
            {
                "type": "dataset-exclusion",
                "name": "other",
                "exclusion_sha256": put(self.x.commitment.to_bytes()),
                "training_sha256": training.commitment.sha256(),
                "digests_sha256": put(bytes(self.x.listing)),
                "proof_sha256": put(made.to_bytes()),
            }
        ]

    def audits(self, name: str) -> list[dict[str, Any]]:
        """The data audit of one model's other commitment."""
        return [data_audit(self.training[name].commitment)] if name in self.audited else []


def see_through(
    simulation: Simulation,
    view: str = GRAM,
    *,
    shards: dict[str, list[Shard]] | None = None,
    reading: Reading | None = None,
    hiding: Hiding | None = None,
    x: Sequence[str] = ("y 0", "y 1", "y 2"),
    level: str | None = "audited",
) -> OtherView:
    """Let both models exclude `x` through `view`, and the policy require it at `level` (None: not at all)."""
    training = {
        name: in_view("training", names_of(name), view, shards=(shards or {}).get(name), reading=reading, hiding=hiding)
        for name in ("parent", "child")
    }
    seen = OtherView(simulation, training, in_view("exclusion", x, view, hiding=hiding))
    simulation.claimants.append(seen.claims)
    simulation.data_auditors.append(seen.audits)
    if level is not None:
        pin = pin_of(seen.x.commitment)
        wanted = {"claim": "dataset-exclusion", "level": level, "exclusion": pin}
        simulation.bend("policy", lambda policy: policy["require"].append(wanted))
    return seen


def pin_of(commitment: DatasetCommitment) -> dict[str, Any]:
    """What a policy says of a set."""
    records = commitment.records
    return {"view": commitment.view, "records": records.count, "root_blake3": records.root_blake3}


def add_dataset(simulation: Simulation, *, as_input: bool = False) -> DatasetCommitment:
    """A second dataset of the child, pre-committed and among its inputs. `as_input`: also a file of the program."""
    second, _ = commitment_of("training", [f"second {number}" for number in range(16)])
    entry = {
        "name": "second",
        "commitment_sha256": second.sha256(),
        "view": second.view,
        "records": second.records.count,
        "records_root_blake3": second.records.root_blake3,
        "set_root_blake3": second.set.root_blake3,
    }

    def more_data(precommit: dict[str, Any]) -> None:
        simulation.put(second.to_bytes())
        precommit["data"].append(entry)
        if as_input:
            precommit["program"]["data_files"] += data_files("second", second)

    def say_so(predicate: dict[str, Any]) -> None:
        predicate["inputs"]["datasets"].append({"name": "second", "commitment_sha256": second.sha256()})

    simulation.bend("child.precommit", more_data).bend("child.predicate", say_so)
    return second


def data_audit(commitment: DatasetCommitment, source: str = "data", **changed: Any) -> dict[str, Any]:
    """A data audit that made the commitment again."""
    return {
        "version": "pot/data-audit/v1",
        "commitment_sha256": commitment.sha256(),
        "source": source,
        "records": commitment.records.count,
        "outcome": "MATCH",
        **changed,
    }


def add_inclusion(
    simulation: Simulation, names: Sequence[str], model: str = "child", level: str | None = "audited"
) -> Committed:
    """Let a model claim that it was trained on the records `names`, and the policy require it."""
    commitment, digests = simulation.training[model]
    training = Committed(commitment, digests)
    inclusion = Committed(*commitment_of("inclusion", list(names)))
    made = include(training, inclusion)
    assert not isinstance(made, Missing)
    file = made.to_bytes()

    def claims(name: str) -> list[dict[str, Any]]:
        if name != model:
            return []
        return [
            {
                "type": "dataset-inclusion",
                "name": "y",
                "inclusion_sha256": simulation.put(inclusion.commitment.to_bytes()),
                "training_sha256": commitment.sha256(),
                "digests_sha256": simulation.put(bytes(inclusion.listing)),
                "proof_sha256": simulation.put(file),
            }
        ]

    simulation.claimants.append(claims)
    if level is not None:
        wanted = {"claim": "dataset-inclusion", "level": level, "inclusion": pin_of(inclusion.commitment)}
        simulation.bend("policy", lambda policy: policy["require"].append(wanted))
    return inclusion


def claim_of(report: Report, kind: str, name: str | None = None) -> ClaimReport:
    """The model's own claim of this type and name."""
    return next(
        claim
        for claim in report.claims
        if claim.type == kind
        and (name is None or claim.name == name)
        and report.certificate is not None
        and claim.certificate_sha256 == report.certificate.certificate_sha256
    )


def add_composition(
    simulation: Simulation,
    model: str = "child",
    licences: Sequence[str] = ("CC0-1.0", "MIT"),
    *,
    level: str | None = "audited",
    only: dict[str, list[str]] | None = None,
    audited: bool = True,
) -> Composition:
    """Let a model state its data's composition by licence, record by record in turn, and the policy require it."""
    commitment, listing = simulation.training[model]
    digests = np.frombuffer(listing, np.uint8).reshape(-1, 32)
    labels = [{"licence": licences[number % len(licences)]} for number in range(len(digests))]
    composition = compose(commitment, digests, [1] * len(digests), ["licence"], labels)

    def claims(name: str) -> list[dict[str, Any]]:
        digest = simulation.put(composition.to_bytes())
        claim = {"type": "data-composition", "training_sha256": commitment.sha256(), "composition_sha256": digest}
        return [claim] if name == model else []

    def audits(name: str) -> list[dict[str, Any]]:
        done = audited and name == model
        return [data_audit(commitment, compositions=[composition.sha256()])] if done else []

    simulation.claimants.append(claims)
    simulation.data_auditors.append(audits)
    if level is not None:
        wanted: dict[str, Any] = {"claim": "data-composition", "level": level}
        if only is not None:
            wanted["only"] = only
        simulation.bend("policy", lambda policy: policy["require"].append(wanted))
    return composition
