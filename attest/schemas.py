"""JSON Schemas of every format, generated from the models: `python -m attest.schemas FOLDER` writes them.

The committed ones are under `specs/schemas/`; a test fails where they drift. A schema tells less than the strict
reader demands (canonical bytes, no duplicate keys, caps, and what the specifications say in words).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pot.canonical import write_file

__all__ = ["main", "schemas"]


def schemas() -> dict[str, bytes]:
    """File name -> the schema's bytes, sorted and indented, for every format."""
    return {
        f"{name}.schema.json": (json.dumps(_schema(name, model), indent=2, sort_keys=True) + "\n").encode()
        for name, model in _models().items()
    }


def main(arguments: list[str]) -> int:
    """Write all schemas into the folder that is named."""
    if len(arguments) != 1:
        print("usage: python -m attest.schemas FOLDER", file=sys.stderr)  # noqa: T201
        return 2
    for name, data in schemas().items():
        write_file(Path(arguments[0]) / name, data)
    return 0


def _models() -> dict[str, type[BaseModel]]:
    from attest.bundle import SigstoreBundle
    from attest.door import AskersDocument
    from attest.predicate import TrainingCertificate
    from attest.statement import Statement
    from attest.verdict.policy import PolicyDocument
    from attest.verdict.report import Report
    from pot.audit.audit import AuditResult
    from pot.audit.challenges.beacon import BeaconFile, ChainInfoFile
    from pot.audit.challenges.challenge import Challenge
    from pot.audit.data_audit import DataAudit
    from pot.audit.salted import InnerDigests
    from pot.audit.statistics.canaries import Canaries, CanaryOpening
    from pot.audit.statistics.hints import Hint
    from pot.commitments.dataset import DatasetCommitment
    from pot.data.composition_verify import Composition
    from pot.data.door import Ledger
    from pot.data.door_verify import DoorAnswerHeader, DoorQuery
    from pot.data.exclude_verify import ExclusionHeader
    from pot.data.include_verify import InclusionHeader
    from pot.data.portrait_verify import PortraitHeader
    from pot.data.query import MembershipAnswer
    from pot.recording.precommit import Precommit, SeedNonce
    from pot.recording.transcript import CheckpointEvent, EndEvent, GapEvent, ResumeEvent, StartEvent, StepEvent
    from pot.zk.auto_program import AutoProgram
    from pot.zk.circuit import Circuit
    from pot.zk.opening_verify import BatchOpening, StateOpening
    from pot.zk.proof import StepProof
    from pot.zk.semantics.program import Program

    return {
        "audit-v0.1": AuditResult,
        "auto-program": AutoProgram,
        "batch-opening": BatchOpening,
        "beacon-chain": ChainInfoFile,
        "beacon-round": BeaconFile,
        "canaries": Canaries,
        "canaries-opening": CanaryOpening,
        "challenge": Challenge,
        "circuit": Circuit,
        "composition": Composition,
        "data-audit-v0.1": DataAudit,
        "dataset-commitment": DatasetCommitment,
        "door-answer-header": DoorAnswerHeader,
        "door-askers": AskersDocument,
        "door-ledger": Ledger,
        "door-query": DoorQuery,
        "event-checkpoint": CheckpointEvent,
        "event-end": EndEvent,
        "event-gap": GapEvent,
        "event-resume": ResumeEvent,
        "event-start": StartEvent,
        "event-step": StepEvent,
        "exclusion-header": ExclusionHeader,
        "hint": Hint,
        "inclusion-header": InclusionHeader,
        "inner-digests": InnerDigests,
        "membership-answer": MembershipAnswer,
        "policy": PolicyDocument,
        "portrait-header": PortraitHeader,
        "precommit": Precommit,
        "report": Report,
        "seed-nonce": SeedNonce,
        "sigstore-bundle": SigstoreBundle,
        "state-opening": StateOpening,
        "statement": Statement,
        "step-program": Program,
        "step-proof": StepProof,
        "training-certificate-v0.1": TrainingCertificate,
    }


def _schema(name: str, model: type[BaseModel]) -> dict[str, Any]:
    schema = _portable(model.model_json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{name}.schema.json", **schema}


def _portable(value: Any) -> Any:
    """Patterns in the dialect of JSON Schema (ECMA 262), which has no `\\A` and `\\z`."""
    if isinstance(value, dict):
        return {
            key: item.replace(r"\A", "^").replace(r"\z", "$")
            if key == "pattern" and isinstance(item, str)
            else _portable(item)
            for key, item in value.items()
        }
    return [_portable(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
