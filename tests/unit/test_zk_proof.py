"""The step proof object: strict reading, no heavy import, and the point names at a proof's front."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pot.errors import Malformed, MissingExtra
from pot.recording.transcript import Points
from pot.zk import engine as engine_module
from pot.zk.circuit import BLOCKS
from pot.zk.engine import EngineFailure, EzklEngine
from pot.zk.proof import MAX_PROOF_BYTES, StepProof, front_points
from pot.zk.srs import srs_logrows

POINTS = Points(before="1" * 128, batch="2" * 128, after="3" * 128)
PROOF = StepProof(
    version="pot/step-proof/v1",
    precommit_sha256="a" * 64,
    step="7",
    circuit_sha256="b" * 64,
    points=POINTS,
    proof="00ff",
)


def test_it_reads_back_what_it_writes() -> None:
    assert StepProof.from_bytes(PROOF.to_bytes(), what="proof") == PROOF


@pytest.mark.parametrize(
    "change",
    [{"version": "pot/step-proof/v2"}, {"step": "07"}, {"step": 7}, {"proof": "0"}, {"proof": ""}, {"proof": "00FF"},
     {"proof": "00" * (MAX_PROOF_BYTES + 1)}, {"proof": "00\n"}, {"circuit_sha256": "b" * 63}, {"verifying_key": "00"},
     {"points": {"before": "1" * 128, "batch": "2" * 128}}],
)  # fmt: skip
def test_other_forms_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        StepProof.from_value({**PROOF.model_dump(), **change}, what="proof")


def test_the_points_at_the_front_have_names() -> None:
    body = b"".join(bytes([i]) * 64 for i in range(7))
    front = front_points(body)
    assert front is not None
    assert list(front) == list(BLOCKS)
    assert front["after"] == "04" * 64
    assert front_points(body[:383]) is None


def test_reading_a_step_proof_loads_nothing_heavy() -> None:
    code = "import sys, pot.zk.verifier; print([m for m in ('numpy', 'onnx', 'ezkl', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_without_ezkl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers_missing(child: engine_module._Child) -> int:
        child.write("reply.json", b'{"missing":true}')
        return 0

    monkeypatch.setattr(engine_module._Child, "_execute", answers_missing)
    with pytest.raises(MissingExtra, match=r"\[zk\]"):
        EzklEngine().verify([b"\0"], b"{}", b"", b"")


def _answering(monkeypatch: pytest.MonkeyPatch, answer: bytes, status: int = 0) -> EzklEngine:
    def answers(child: engine_module._Child) -> int:
        child.write("reply.json", answer)
        return status

    monkeypatch.setattr(engine_module._Child, "_execute", answers)
    return EzklEngine()


GOOD = b'{"result":{"valid":[true]},"version":"23.0.5"}'


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b'{"error":"panicked"}', b"7", b"[]", b'"missing"', b"{}", b"[" * 100_000,
     GOOD.replace(b"version", b"v"), GOOD.replace(b'{"valid":[true]}', b"[]"), GOOD.replace(b"[true]", b"[]"),
     GOOD.replace(b"[true]", b"true"), GOOD.replace(b"[true]", b"[true,true]")],
)  # fmt: skip
def test_a_child_that_answers_badly_is_our_error(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    with pytest.raises(EngineFailure):
        _answering(monkeypatch, answer).verify([b"\0"], b"{}", b"", b"")


def test_only_true_from_a_child_that_ended_well_is_an_acceptance(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _answering(monkeypatch, GOOD).verify([b"\0"], b"{}", b"", b"") == [True]
    for value in (b"1", b'"true"', b"null", b"[true]"):
        assert _answering(monkeypatch, GOOD.replace(b"true", value)).verify([b"\0"], b"{}", b"", b"") == [False]
    for status in (1, -9, -11):  # a crash after the answer was written
        with pytest.raises(EngineFailure, match="ended badly"):
            _answering(monkeypatch, GOOD, status).verify([b"\0"], b"{}", b"", b"")


def test_an_srs_of_the_wrong_length_is_refused() -> None:
    assert srs_logrows((1).to_bytes(4, "little") + bytes(512)) == 1
    for data in (b"", bytes(516), (1).to_bytes(4, "little") + bytes(513), (40).to_bytes(4, "little") + bytes(512)):
        with pytest.raises(Malformed):
            srs_logrows(data)
