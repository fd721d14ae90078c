"""Step proofs with ezkl by the command: spread over a real Ray cluster, and through an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pointed_run import STEPS, PointedRun, small_program
from ray_cluster import cluster_of

from attest.cli.main import main
from pot.recording.checking.finished import load_run
from pot.zk.engine import EzklEngine
from pot.zk.kit import build_kit
from pot.zk.runs.rewind import points_of
from pot.zk.verifier import Expected, read_step_proof, verify_steps

pytest.importorskip("ezkl")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    with cluster_of(2) as made:
        yield made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PointedRun:
    folder, engine = tmp_path_factory.mktemp("proven"), EzklEngine()
    return PointedRun(folder, build_kit(small_program(), engine.make_srs(9), folder / "kit", engine, columns=2), engine)


def words(run: PointedRun, out: Path, *rest: str) -> list[str]:
    return [
        "prove", str(run.run_dir), "--kit", str(run.kit.folder), "--data", str(run.data), "--secret", str(run.secret),
        "--out", str(out), *rest,
    ]  # fmt: skip


def verified(run: PointedRun, out: Path) -> list[int]:
    """The steps whose files verify with ezkl."""
    precommit, _, chain = load_run(run.run_dir)
    proofs = [read_step_proof(path.read_bytes()) for path in sorted(out.glob("*.json"))]
    expected = [Expected(precommit.sha256(), int(p.step), points_of(chain, int(p.step))) for p in proofs]
    verify_steps(
        proofs, kit=run.kit.verifying, circuit_sha256=run.kit.circuit.sha256(), expected=expected, engine=EzklEngine()
    )
    return [int(proof.step) for proof in proofs]


def test_a_cluster_proves_the_same_steps(
    finished: PointedRun, cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(finished, tmp_path / "out", "--steps", "3,6", "--ray", cluster.address, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == [3, 6]
    assert verified(finished, tmp_path / "out") == [3, 6]


def test_an_interrupted_command_leaves_nothing_behind_and_goes_on(
    finished: PointedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    every = f"1-{STEPS}"
    process = subprocess.Popen(
        [sys.executable, "-m", "attest.cli", *words(finished, out, "--steps", every, "--workers", "2")],
        env={**os.environ, "TMPDIR": str(scratch)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not list(out.glob("*.json")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "interrupted" in told.splitlines()[-1]
    assert not list(scratch.glob("pot-*"))  # with what ezkl was given: weights and blinds
    proven = verified(finished, out)
    assert 1 <= len(proven) < STEPS
    assert main(words(finished, out, "--steps", every, "--workers", "2")) == 0
    assert f"{len(proven)} of {STEPS} steps are proven already" in capsys.readouterr().err
    assert verified(finished, out) == [*range(1, STEPS + 1)]
    assert not (out / "parts").exists()
