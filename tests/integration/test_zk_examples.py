"""The step-proof examples as a user runs them, with few steps and real proofs: PASS, and DENY when bent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("ezkl")
pytest.importorskip("sklearn")
pytest.importorskip("torch")


def run(example: str, *options: str, expect: int) -> str:
    """The summary that an example prints."""
    words = [sys.executable, str(ROOT / "examples" / example), *options]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == expect, ended.stdout[-3000:] + ended.stderr[-5000:]
    return " ".join(ended.stdout.split())


@pytest.fixture(scope="module")
def finetune(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("examples") / "finetune"
    return folder, run("zk_finetune.py", "--out", str(folder), "--steps", "2", expect=0)


def test_every_step_of_the_example_is_proven_from_the_parents_release(finetune: tuple[Path, str]) -> None:
    folder, told = finetune
    assert "2 of 2 steps proven" in told
    assert "PASS: " in told
    assert "proved: every one of the run's 2 steps was proven" in told
    assert (folder / "report.html").is_file()


def test_the_frozen_layer_is_the_parents_bit_by_bit_on_the_grid(finetune: tuple[Path, str]) -> None:
    """The network of the example: its first layer stays, its last one is trained."""
    from safetensors.numpy import load_file

    from pot.zk.semantics.fixed import dequantise, quantise

    folder, _ = finetune
    parent, released = (load_file(folder / name / "model.safetensors") for name in ("parent", "release"))
    stays = {name: (dequantise(quantise(parent[name])) == released[name]).all() for name in parent}
    assert stays == {"0.weight": True, "0.bias": True, "2.weight": False, "2.bias": False}


@pytest.fixture(scope="module")
def head_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same, with the frozen layer in front of the step: its features are committed records."""
    folder = tmp_path_factory.mktemp("examples") / "head"
    return folder, run("zk_finetune.py", "--out", str(folder), "--steps", "2", "--frozen", "records", expect=0)


def test_a_program_over_the_head_alone_is_tied_to_the_parents_release_and_the_released_file(
    head_alone: tuple[Path, str],
) -> None:
    from safetensors.numpy import load_file

    folder, told = head_alone
    assert "PASS: " in told
    assert "proved: every one of the run's 2 steps was proven" in told
    assert "they train 2 of the model's 4 tensors, and the others are released as the run began with them" in told
    parent, released = (load_file(folder / name / "model.safetensors") for name in ("parent", "release"))
    stays = {name: parent[name].tobytes() == released[name].tobytes() for name in parent}
    assert stays == {"0.weight": True, "0.bias": True, "2.weight": False, "2.bias": False}
    states = json.loads((folder / "kit/program.json").read_bytes())["nodes"]
    assert [node["name"] for node in states if node["op"] == "state"] == ["2.weight", "2.bias"]


def test_another_frozen_layer_under_the_developers_good_signature_is_denied(head_alone: tuple[Path, str]) -> None:
    told = run("zk_finetune.py", "--out", str(head_alone[0]), "--bend", "frozen", expect=1)
    assert (
        "DENY: step 9, operation: digits-tuned: operation 2 (dequantise/1): recomputed, it gives other weights" in told
    )


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("weights", "subject: digits-tuned: model: the files at hand are not the certified model"),
        ("step", "step-proof: digits-tuned: steps 1, 2: step 1: part 1 of its proof does not verify"),
        ("batch", "step-points: digits-tuned: step 1: the point 'batch' is not the one in the transcript"),
        ("claim", "step-points: digits-tuned: step 1: the step proof is of another step"),
    ],
    ids=["weights", "step", "batch", "claim"],
)
def test_a_bent_fine_tune_is_denied(finetune: tuple[Path, str], what: str, reason: str) -> None:
    told = run("zk_finetune.py", "--out", str(finetune[0]), "--bend", what, expect=1)
    assert told.startswith("DENY: ")
    assert reason in told


def test_no_step_of_the_example_read_a_record_of_x(tmp_path: Path) -> None:
    told = run("zk_exclusion.py", "--out", str(tmp_path / "out"), "--steps", "1", expect=0)
    assert "PASS: " in told
    assert "proved: no record of X has the same image as a record that any step of this run read" in told


def test_a_step_of_the_example_that_read_x_is_denied(tmp_path: Path) -> None:
    told = run("zk_exclusion.py", "--out", str(tmp_path / "out"), "--steps", "1", "--bend", expect=1)
    assert "DENY: step 11, step-absence: digits-tuned: step 1: record" in told
    assert "of its batch is in the exclusion set" in told


def test_drawn_steps_of_softmax_regression_are_proven(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    told = run("zk_softmax.py", "--out", str(folder), "--steps", "4", expect=0)
    drawn = json.loads((folder / "challenge.json").read_bytes())["chosen"]
    assert f"{len(drawn)} of 4 steps, drawn by the verifier, proven" in told
    assert "PASS: " in told
    assert "a verifier chose them" in told or "every one of the run's 4 steps" in told
    assert "does not verify" in run("zk_softmax.py", "--out", str(folder), "--bend", expect=1)
