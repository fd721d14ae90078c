"""The example on real data: the standard library without asyncio, from corpus to verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from attest.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def test_the_certificate_shows_that_no_run_of_asyncio_is_in_the_data(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "examples/exclude_stdlib.py"), "--out", str(tmp_path / "out"), "--steps", "120"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert "of them share a run of 50 bytes with asyncio and are dropped" in ended.stdout
    assert "PASS  model" in ended.stdout
    assert "have a run of 50 or more bytes of normalised text in common" in ended.stdout
    assert (tmp_path / "out" / "report.html").is_file()
    model, policy = tmp_path / "out" / "model", tmp_path / "out" / "policy.yaml"
    assert main(["verify", str(model), "--policy", str(policy), "--offline"]) == 0
    # a set of another number of records is not the one that this policy means
    policy.write_text(policy.read_text().replace("records: ", "records: 1"))
    assert main(["verify", str(model), "--policy", str(policy), "--offline"]) == 3


def test_what_is_dropped_is_what_overlaps(tmp_path: Path) -> None:
    """The two index lists of an overlap, on a corpus small enough to look at."""
    shared = "def close(self):\n    '''Close the transport and wait for the last byte.'''\n    return self._close()\n"
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("x = 1\n" * 20, shared)))
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "async " + shared}) + "\n")
    for name, role in (("d", []), ("x", ["--as-exclusion"])):
        words = ["data", "commit", str(tmp_path / f"{name}.jsonl"), "--view", "winnow50/1"]
        assert main([*words, "--out", str(tmp_path / f"{name}.json"), *role]) == 0
    words = ["data", "exclude", str(tmp_path / "d.json"), str(tmp_path / "x.json"), "--out", str(tmp_path / "p")]
    ended = subprocess.run(
        [sys.executable, "-m", "attest.cli", *words, "--list", "--list-training", "--json"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    value = json.loads(ended.stdout)
    assert (value["overlap"], value["indices"], value["training_indices"]) == ("1", ["0"], ["1"])
