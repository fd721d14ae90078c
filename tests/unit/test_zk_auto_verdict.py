"""Step 11 for a circuit of family auto: its kit is put together from objects, and it is none for an exact run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from attest.verdict.findings import Ledger
from attest.verdict.step_kit import step_kit
from pot.canonical import sha256_hex
from pot.errors import Refused
from pot.zk.auto_family import BLINDS, INPUTS
from pot.zk.auto_program import AutoField, AutoProgram, AutoTensor
from pot.zk.circuit import Circuit, CircuitPart
from pot.zk.kit import VerifyingKit

SRS = (12).to_bytes(4, "little") + bytes((128 << 12) + 256)
PROGRAM = AutoProgram(
    version="pot/auto-program/v1", label="tiny", batch=2, max_steps=9, state=[AutoTensor(name="w", shape=[3, 8])],
    fields=[AutoField(name="image", shape=[2, 8], kind="unsigned", bits=4, width=5)], scale=8, lookup_bits=11,
    limb_bits=10, limbs=3, onnx_sha256="44" * 32,
)  # fmt: skip
PART = CircuitPart(
    inputs=INPUTS, powers=[], onnx_sha256=PROGRAM.onnx_sha256, settings_sha256=sha256_hex(b"{}"),
    vk_sha256=sha256_hex(b"key"), proof_bytes="9000",
)  # fmt: skip
CIRCUIT = Circuit(
    version="pot/circuit/v2", family="auto", label="tiny", program_sha256=PROGRAM.sha256(), batch=2, parameters=24,
    max_steps=9, logrows=12, columns=2, blinds=BLINDS, ezkl_version="23.0.5", srs_sha256=sha256_hex(SRS), parts=[PART],
)  # fmt: skip


def judged(*, semantics: str = "float", batch: str = "2", pinned: bool = True) -> tuple[VerifyingKit | None, Ledger]:
    held = {sha256_hex(data): data for data in (CIRCUIT.to_bytes(), PROGRAM.to_bytes(), b"{}", b"key", SRS)}
    precommit = SimpleNamespace(
        config={"circuit_sha256": CIRCUIT.sha256()}, semantics=semantics, order=SimpleNamespace(batch=batch)
    )
    case: Any = SimpleNamespace(
        ledger=Ledger(), precommit=precommit, not_shown=set(), object=lambda _, sha256, __: held[sha256]
    )
    policy: Any = SimpleNamespace(circuits=[CIRCUIT.sha256()] * pinned, srs={CIRCUIT.srs_sha256: "verifier"})
    return step_kit(case, CIRCUIT.sha256(), policy), case.ledger


def test_an_auto_kit_is_put_together_and_its_family_named() -> None:
    kit, ledger = judged()
    assert kit is not None
    assert kit.step == PROGRAM
    kit.check()
    (finding,) = (item for item in ledger.findings if item.code == "circuit")
    assert (finding.status, finding.level) == ("passed", "proved")
    assert "family auto: each rescale right to one unit in the last place, in either direction" in finding.detail
    assert kit.slack == 0
    with pytest.raises(Refused, match="is of family auto"):
        _ = kit.program


@pytest.mark.parametrize("change", [{"semantics": "exact"}, {"batch": "4"}, {"pinned": False}])
def test_an_auto_circuit_is_none_for_another_run(change: dict[str, Any]) -> None:
    kit, ledger = judged(**change)
    assert kit is None
    assert ledger.findings[-1].code == "circuit"
    assert ledger.findings[-1].status == ("failed" if "pinned" not in change else "not_checked")
