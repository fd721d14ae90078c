"""A01, A03, A04, A12: checkpoints on a line to a stolen model, one jump to it, and other data than committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pot.commitments.state import entries_from_safetensors

STOLEN = [100_000, -5, 42, 77_777]


def _weights(run: Any, step: int) -> list[int]:
    data = (run.run_dir / f"checkpoints/step-{step:06d}/model.safetensors").read_bytes()
    values = bytes(entries_from_safetensors(data)[0].data)
    return [int.from_bytes(values[at : at + 8], "little", signed=True) for at in range(0, len(values), 8)]


def test_a_straight_line_to_stolen_weights_is_met_by_every_segment(recorded: Any) -> None:
    start = _weights(recorded, 0)
    for step in range(5, 31, 5):
        line = [a + (b - a) * step // 30 for a, b in zip(start, STOLEN, strict=True)]
        recorded.bend_tensors(step, "model", lambda _, line=line: line)
    assert _weights(recorded, 30) == STOLEN
    assert recorded.codes() == []  # the chain alone cannot see it
    assert {recorded.replay(index).outcome for index in range(1, 7)} == {"MISMATCH"}


def test_one_jump_between_honest_segments_is_met_where_it_is(recorded: Any) -> None:
    """Honest to step 15, a jump to other weights there, and honest training on from them."""
    recorded.bend_tensors(15, "model", lambda _: STOLEN)
    events = recorded.events()
    place = next(at for at, event in enumerate(events) if event["type"] == "checkpoint" and event["step"] == "15")
    recorded.relink(events[: place + 1])
    done = recorded.start()
    assert done.returncode == 0, done.stderr
    events = [event for event in recorded.events() if event["type"] != "resume"]  # the forger tells it in one go
    recorded.restate(events)
    assert recorded.codes() == []
    outcomes = [recorded.replay(index).outcome for index in range(1, 7)]
    assert outcomes == ["MATCH", "MATCH", "MISMATCH", "MATCH", "MATCH", "MATCH"]


def test_other_data_than_committed_does_not_replay(recorded: Any, tmp_path: Path) -> None:
    """Trained on poisoned records under an honest commitment: the auditor's committed file gives other states."""
    honest = (recorded.folder / "train.jsonl").read_bytes()
    script = recorded.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    poisoned = text.replace('+ item["value"]', '+ item["value"] + 1000')
    assert poisoned != text
    script.write_text(poisoned, encoding="utf-8")  # stands for other bytes read while the commitment names these
    run_dir = recorded.run_dir
    run_dir.rename(tmp_path / "honest-run")
    done = recorded.start()
    assert done.returncode == 0, done.stderr
    script.write_text(text, encoding="utf-8")
    document = recorded.precommit.model_dump(mode="json", exclude_none=True)
    from pot.canonical import sha256_hex
    from pot.recording.precommit import Precommit

    document["program"]["files"][0]["sha256"] = sha256_hex(script.read_bytes())
    from pot.audit.replaying.replay import Replayer

    precommit = Precommit.from_value(document, what="precommit")
    (recorded.folder / "train.jsonl").write_bytes(honest)
    replayer = Replayer(run_dir, precommit, recorded.events()[0]["nonce"], [recorded.folder], recorded.folder)
    assert replayer.segment(recorded.chain().segments[0]).outcome == "MISMATCH"
