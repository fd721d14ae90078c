"""The step proof object: strict reading, no heavy import, points by name; and what the engine's child may answer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pot.errors import LimitExceeded, Malformed, MissingExtra
from pot.recording.transcript import Points
from pot.zk.circuits.parts import MAX_PARTS
from pot.zk.engine import EngineFailure, EzklEngine
from pot.zk.engine_process import Child
from pot.zk.proof import MAX_PROOF_BYTES, MAX_STEP_PROOF_BYTES, StepProof, front_points, named_points
from pot.zk.srs import srs_logrows
from pot.zk.verifier import read_step_proof

POINTS = Points(before="1" * 128 + "4" * 128, batch="2" * 128, after="3" * 128 + "5" * 128)
PROOF = StepProof(
    version="pot/step-proof/v2",
    precommit_sha256="a" * 64,
    step="7",
    circuit_sha256="b" * 64,
    points=POINTS,
    witness=["6" * 128],
    proofs=["00ff", "01"],
)
NAMES = ["before.0", "before.1", "after.0", "after.1", "batch.0", "witness.0"]


def test_it_reads_back_what_it_writes() -> None:
    assert StepProof.from_bytes(PROOF.to_bytes(), what="proof") == PROOF


@pytest.mark.parametrize(
    "change",
    [{"version": "pot/step-proof/v1"}, {"step": "07"}, {"step": 7}, {"proofs": ["0"]}, {"proofs": [""]},
     {"proofs": []}, {"proofs": ["00"] * (MAX_PARTS + 1)}, {"proofs": "00"}, {"proofs": ["00FF"]},
     {"proofs": ["00" * (MAX_PROOF_BYTES + 1)]}, {"proofs": ["00\n"]}, {"circuit_sha256": "b" * 63},
     {"verifying_key": "00"}, {"points": {"before": "1" * 128, "batch": "2" * 128}},
     {"points": {**POINTS.model_dump(), "before": ""}}, {"points": {**POINTS.model_dump(), "before": "1" * 127}},
     {"points": {**POINTS.model_dump(), "after": "3" * 128 * 65}}, {"witness": ["6" * 127]},
     {"witness": ["6" * 128] * 257}, {"witness": "6" * 128}, {"witness": None}],
)  # fmt: skip
def test_other_forms_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        StepProof.from_value({**PROOF.model_dump(), **change}, what="proof")


def test_a_proof_of_an_absurd_size_is_not_read() -> None:
    with pytest.raises(LimitExceeded):
        read_step_proof(b" " * (MAX_STEP_PROOF_BYTES + 1))
    assert len(PROOF.to_bytes()) < MAX_STEP_PROOF_BYTES


def test_points_have_the_names_of_their_vectors() -> None:
    named = named_points(NAMES, POINTS, PROOF.witness)
    assert named == {
        "before.0": "1" * 128, "before.1": "4" * 128, "after.0": "3" * 128, "after.1": "5" * 128,
        "batch.0": "2" * 128, "witness.0": "6" * 128,
    }  # fmt: skip
    for names in (NAMES[:-1], NAMES[1:], [*NAMES, "witness.1"], [*NAMES, "batch.1"], []):
        assert named_points(names, POINTS, PROOF.witness) is None
    assert named_points(NAMES, POINTS, []) is None


def test_the_points_at_the_front_have_the_names_of_a_parts_inputs() -> None:
    body = b"".join(bytes([i]) * 64 for i in range(4))
    front = front_points(body, ["before.0", "constants", "challenge"])
    assert front == {"before.0": "00" * 64, "constants": "01" * 64, "challenge": "02" * 64}
    assert front_points(body[:191], ["before.0", "constants", "challenge"]) is None


def test_reading_a_step_proof_loads_nothing_heavy() -> None:
    code = "import sys, pot.zk.verifier; print([m for m in ('numpy', 'onnx', 'ezkl', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_without_ezkl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtra, match=r"\[zk\]"):
        _answering(monkeypatch, b'{"missing":true}').verify([(b"\0", [0])], b"{}", b"", b"")


def _answering(monkeypatch: pytest.MonkeyPatch, answer: bytes, status: int = 0) -> EzklEngine:
    def answers(child: Child) -> int:
        child.write("reply.json", answer)
        return status

    monkeypatch.setattr(Child, "_execute", answers)
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
        _answering(monkeypatch, answer).verify([(b"\0", [0])], b"{}", b"", b"")


def test_only_true_from_a_child_that_ended_well_is_an_acceptance(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(b"\0", [0])]
    assert _answering(monkeypatch, GOOD).verify(asked, b"{}", b"", b"") == [True]
    for value in (b"1", b'"true"', b"null", b"[true]"):
        assert _answering(monkeypatch, GOOD.replace(b"true", value)).verify(asked, b"{}", b"", b"") == [False]
    for status in (1, -9, -11):  # a crash after the answer was written
        with pytest.raises(EngineFailure, match="ended badly"):
            _answering(monkeypatch, GOOD, status).verify(asked, b"{}", b"", b"")


def test_an_srs_of_the_wrong_length_is_refused() -> None:
    assert srs_logrows((1).to_bytes(4, "little") + bytes(512)) == 1
    for data in (b"", bytes(516), (1).to_bytes(4, "little") + bytes(513), (40).to_bytes(4, "little") + bytes(512)):
        with pytest.raises(Malformed):
            srs_logrows(data)
