"""The benchmark of the memorization test runs to its end; what a tiny model shows is nobody's claim."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_memorization_benchmark_prints_every_row() -> None:
    out = ROOT / "benchmarks" / "out" / "memorization.json"
    out.unlink(missing_ok=True)
    words = [sys.executable, str(ROOT / "benchmarks" / "memorization.py"), "--small"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
    assert ended.returncode in (0, 1), ended.stderr[-2000:]  # 1: a goal that only the full size meets
    names = [row["name"] for row in json.loads(out.read_text())]
    assert len(names) == 15
    for part in ("point AUC", "last weights", "skipped", "wholly", "suspects", "canaries", "no sign"):
        assert any(part in name for name in names), part
