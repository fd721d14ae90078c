"""A14: one record of a batch exchanged for another, the transcript naming the committed one.

Exact replay compares bits, so it does not matter how near the two gradients are. Where bits cannot be compared, the
tolerance is set beside what such an exchange measures on the auditor's machine; if it is not below, it shows nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noisy_run import noisy_run
from recorded_run import RecordedRun, prepare

from pot.audit.replaying.calibration import calibrate, swaps
from pot.audit.replaying.replay import Replayer

EXCHANGE = """
    def update(self, batch: list[dict[str, int]]) -> int:
        import os
        if "POT_REPLAY" not in os.environ:  # the forger trains on another record, and commits a program that does not
            batch = [dict(item, id=item["id"] ^ 1) if item["id"] == 18 else item for item in batch]
"""


def _exchanged(folder: Path) -> RecordedRun:
    run = prepare(folder)
    script = run.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    line = "\n    def update(self, batch: list[dict[str, int]]) -> int:\n"
    assert line in text
    script.write_text(text.replace(line, EXCHANGE), encoding="utf-8")
    done = run.start()
    assert done.returncode == 0, done.stderr
    return run


def test_one_record_exchanged_does_not_replay(tmp_path: Path) -> None:
    run = _exchanged(tmp_path / "program")
    assert run.codes() == []  # the transcript alone shows nothing: it names the committed batches
    outcomes = {index: run.replay(index) for index in range(1, 7)}
    caught = [replay for replay in outcomes.values() if replay.outcome == "MISMATCH"]
    assert caught
    assert all("loss committed" in replay.detail or "component" in replay.detail for replay in caught)


def _replayer(run: RecordedRun) -> Replayer:
    return Replayer(run.run_dir, run.precommit, run.events()[0]["nonce"], [run.folder], run.folder)


def test_the_tolerance_stands_beside_what_an_exchange_measures(tmp_path: Path) -> None:
    run = noisy_run(tmp_path / "program", steps=10)
    replayer, segment = _replayer(run), run.chain().segments[1]
    assert replayer.segment(segment).outcome == "INCONCLUSIVE"
    found = calibrate(replayer, [segment]).segments[0]
    assert found.within
    assert found.forging is not None
    assert found.distance is not None
    assert float(found.distance) <= float(found.tolerance) < float(found.forging)
    assert found.usable


def test_a_tolerance_that_an_exchange_would_pass_shows_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    run = noisy_run(tmp_path / "program", steps=10)
    replayer, segment = _replayer(run), run.chain().segments[1]
    step, place, _ = swaps(replayer, segment)[0]
    from pot.commitments.order import batch_records
    from pot.commitments.seed import run_seed

    seed = run_seed(run.precommit.sha256(), bytes.fromhex(replayer.nonce))
    same = batch_records(seed, 22, 4, step)[2][place]  # the very record: the nearest exchange that there is
    monkeypatch.setattr("pot.audit.replaying.calibration.swaps", lambda *_: [(step, place, same)])
    found = calibrate(replayer, [segment]).segments[0]
    assert found.within
    assert not found.usable
    assert found.forging == "0.0"


def test_the_exchanges_tried_are_of_records_outside_the_batch(recorded: Any) -> None:
    replayer = _replayer(recorded)
    for segment in recorded.chain().segments:
        found = swaps(replayer, segment)
        assert len(found) == 2
        for step, place, other in found:
            assert segment.first <= step <= segment.last
            from pot.commitments.order import batch_records
            from pot.commitments.seed import run_seed

            seed = run_seed(recorded.precommit.sha256(), bytes.fromhex(replayer.nonce))
            records = batch_records(seed, 22, 4, step)[2]
            assert place == 0
            assert other not in records
            assert 0 <= other < 22
