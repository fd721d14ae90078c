"""SIGKILL at twenty random points, and the same command goes on each time: the same weights at the end, and a PASS."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from recorded_run import ROOT, RecordedRun, prepare, release_weights

from attest.bundle import read_release
from attest.certify import certify, sign_audit
from attest.trust.keys import generate
from attest.verdict.policy import read_policy
from attest.verdict.verify import verify
from pot.audit.audit import audit
from pot.audit.challenges.challenge import new_challenge

DEVELOPER, AUDITOR = generate(), generate("ecdsa-p256")
KILLS = 20
STEPS, EVERY, STATE_EVERY = 3000, 10, 30


def _lines(run: RecordedRun) -> int:
    path = run.run_dir / "transcript.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _kill_after(run: RecordedRun, lines: int) -> bool:
    """Start the program and kill it when the transcript has grown by `lines`; False where it came to its end first."""
    wanted = _lines(run) + lines
    command = [sys.executable, "toy_training.py", *run.arguments]
    process = subprocess.Popen(
        command, cwd=run.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and _lines(run) < wanted:
        assert time.monotonic() < deadline
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return not ended


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RecordedRun, RecordedRun]:
    """The run that was killed, and a whole one of the same pre-commitment and nonce."""
    folder = tmp_path_factory.mktemp("killed")
    run = prepare(folder / "program", steps=STEPS, every=EVERY)
    run.arguments.append(str(STATE_EVERY))
    draw = random.Random()
    points = [draw.randrange(1, STEPS // (KILLS + 5)) for _ in range(KILLS)]
    kills = sum(_kill_after(run, point) for point in points)
    assert kills == KILLS, f"the run ended before it was killed {KILLS} times, at {points}"
    done = run.start()
    assert done.returncode == 0, done.stderr
    shutil.copytree(run.folder, folder / "whole", ignore=shutil.ignore_patterns("transcript.jsonl", "checkpoints"))
    whole = RecordedRun(folder / "whole", run.arguments)
    done = whole.start()
    assert done.returncode == 0, done.stderr
    return run, whole


def test_the_chain_holds_and_ends_as_the_whole_run_does(killed: Any) -> None:
    run, whole = killed
    assert run.codes() == whole.codes() == []
    one, other = run.chain(), whole.chain()
    assert sum(event["type"] == "resume" for event in run.events()) >= KILLS - 1  # one may come before any checkpoint
    assert one.dropped > 0
    assert one.forks == ()
    assert one.end.state_blake3 == other.end.state_blake3
    last = f"checkpoints/step-{STEPS:06d}/model.safetensors"
    assert (run.run_dir / last).read_bytes() == (whole.run_dir / last).read_bytes()


def test_the_verdict_is_pass(killed: Any, tmp_path: Path) -> None:
    run, _ = killed
    release_weights(run, tmp_path / "toy")
    segments = len(run.chain().segments)
    challenge = new_challenge(
        run.precommit.sha256(), run.transcript.sha256(), segments, forged="0.5", detect="0.9", nonce="07" * 32
    )
    result = audit(run.run_dir, challenge, [run.folder / "train.jsonl"], run.folder, workers=2)
    assert {unit.outcome for unit in result.replays} == {"MATCH"}
    (tmp_path / "audit.jsonl").write_bytes(sign_audit(result, AUDITOR))
    certify(tmp_path / "toy", run.run_dir, DEVELOPER, audits=[tmp_path / "audit.jsonl"])
    policy = {
        "version": "pot/policy/v1",
        "roles": {
            "developer": [{"name": "Acme", "public_key": DEVELOPER.public.pem().decode()}],
            "auditor": [{"name": "Argus", "public_key": AUDITOR.public.pem().decode()}],
        },
        "require": [{"claim": "training-provenance", "level": "committed"}],
        "coverage": {"forged": "0.5", "detect": "0.9"},
    }
    report = verify(read_release(tmp_path / "toy"), read_policy(json.dumps(policy).encode()))
    assert report.verdict == "PASS", report.reason
