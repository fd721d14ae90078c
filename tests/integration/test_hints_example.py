"""A text model of examples/, recorded with planted canaries: both hints by the commands, with the example's losses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from pot.audit.statistics.hints import Hint

ROOT = Path(__file__).resolve().parents[2]
POT = str(Path(sys.executable).with_name("pot"))
PIECE = 48


def tell(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)


def pieces() -> list[str]:
    """Lines of the standard library, no two alike."""
    lines: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40]:
        text = path.read_text("utf-8", "replace")
        lines.update((text[at : at + PIECE], None) for at in range(0, len(text) - PIECE, PIECE) if text.isascii())
    return list(lines)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hints")
    for name in ("train_text.py", "evaluate_text.py"):
        shutil.copyfile(ROOT / "examples" / name, folder / name)
    words = ["--out", "canaries.json", "--opening", "opening.json", "--plant", "planted.jsonl", "--candidates", "200"]
    done = tell(folder, POT, "audit", "canaries", "new", *words)
    assert done.returncode == 0, done.stderr
    texts = pieces()
    kept, other = texts[0:3000:2], texts[1:1000:2]
    planted = (folder / "planted.jsonl").read_text()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in kept) + planted)
    (folder / "other.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in other))
    done = tell(folder, POT, "data", "commit", "train.jsonl", "--out", "train.json", "--view", "text/1")
    assert done.returncode == 0, done.stderr
    program = ["train_text.py", "--data", "train.jsonl", "--commitment", "train.json", "--run", "run", "--out", "model"]
    done = tell(folder, sys.executable, *program, "--steps", "200")
    assert done.returncode == 0, done.stderr
    return folder


def hint(folder: Path, *words: str) -> Any:
    done = tell(folder, POT, "audit", *words, "--evaluate", "evaluate_text.py", "--out", "hint.json", "--json")
    assert done.returncode == 0, done.stderr
    found = Hint.from_bytes((folder / "hint.json").read_bytes(), what="hint")
    assert json.loads(done.stdout) == json.loads(found.to_bytes())
    return found


def test_claimed_records_look_trained_on(trained: Path) -> None:
    found = hint(trained, "memorization", "run", "--data", "train.jsonl", "--held-out", "other.jsonl")
    assert found.memorization.control == "held-out"
    assert [item.segment for item in found.memorization.segments] == ["2", "3", "4"]
    assert float(found.memorization.mean_auc) > 0.55
    assert max(float(item.auc) for item in found.memorization.segments) > 0.6


def test_planted_canaries_are_remembered(trained: Path) -> None:
    found = hint(trained, "canaries", "test", "run", "--registration", "canaries.json", "--opening", "opening.json")
    assert found.status == "consistent"
    assert float(found.canaries.p) < 0.001
