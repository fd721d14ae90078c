"""The committed JSON Schemas are those of the models, and honest documents meet them."""

from __future__ import annotations

import json
from pathlib import Path

from simulated_release import Simulation

from attest.bundle import SigstoreBundle
from attest.schemas import main, schemas

FOLDER = Path(__file__).parents[2] / "specs" / "schemas"


def test_no_schema_has_drifted() -> None:
    """After a change of a model: python -m attest.schemas specs/schemas"""
    assert {path.name: path.read_bytes() for path in FOLDER.glob("*.json")} == schemas()


def test_the_command_writes_them(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(schemas())
    assert main([]) == 2


def test_required_fields_are_those_of_an_honest_certificate() -> None:
    line = Simulation().release().lines[-1]
    predicate = json.loads(SigstoreBundle.from_line(line, what="line").dsse_envelope.payload_bytes())["predicate"]
    schema = json.loads((FOLDER / "training-certificate-v0.1.schema.json").read_text())
    assert set(schema["required"]) == set(predicate)
    assert schema["additionalProperties"] is False
    assert "\\A" not in (FOLDER / "training-certificate-v0.1.schema.json").read_text()
