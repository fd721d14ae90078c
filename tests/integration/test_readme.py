"""The README is true: its order, its hook, its commands, and the certificate it shows are what the software does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from pot.zk.semantics.digits import digits_program

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def block(language: str) -> str:
    found = re.search(rf"(?ms)^```{language}\n(.*?)^```", README)
    assert found is not None
    return found[1]


def plain(line: str) -> str:
    """A line of the report without digests and numbers, which differ from run to run."""
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"\b[0-9a-f]{16,}\b", "H", line)).strip()


def test_order_of_sections() -> None:
    assert re.findall(r"(?m)^## (.*)$", README) == [
        "What a certificate looks like", "The hook", "Trained without X", "Every step proven", "Two commands",
        "Verify in one command", "What it is not", "Links",
    ]  # fmt: skip


def test_certificate_is_real_output(demo_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "attest.cli", "verify", "release", "--policy", "policy.yaml", "--offline"],
        cwd=demo_folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = {plain(line) for line in done.stdout.splitlines()}
    for line in block("text").splitlines():
        assert plain(line) in printed, line


def test_every_not_shown_line_in_the_readme_is_a_real_one() -> None:
    from attest.verdict.codes import NOT_SHOWN

    shown = re.findall(r"(?m)^  - (.*)$", block("text"))
    assert shown
    assert set(shown) <= set(NOT_SHOWN.values())


def test_hook_runs_as_printed(tmp_path: Path) -> None:
    """Both sides of the diff train; the recorded one leaves a finished transcript."""
    lines = block("diff").splitlines()
    with_hook = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    without = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    records = [{"image": [[n % 17, 1], [2, 3]], "label": n % 2} for n in range(64)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    commit = ["data", "commit", "train.jsonl", "--view", "pixels/1", "--out", "train.json"]
    subprocess.run([sys.executable, "-m", "attest.cli", *commit], cwd=tmp_path, check=True, capture_output=True)
    head = """
import json
import torch
records = [json.loads(line) for line in open("train.jsonl")]
images = torch.tensor([record["image"] for record in records], dtype=torch.float32).reshape(64, 4)
data = torch.utils.data.TensorDataset(images, torch.tensor([record["label"] for record in records]))
loader = torch.utils.data.DataLoader(data, batch_size=32)
torch.manual_seed(1)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
loss_of = torch.nn.functional.cross_entropy
"""
    for name, body in (("plain.py", without), ("recorded.py", with_hook)):
        (tmp_path / name).write_text(head + body + "\n")
        done = subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    status = subprocess.run(
        [sys.executable, "-m", "attest.cli", "status", "run"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "step 1000 of 1000, complete" in status.stdout


def test_numbers(demo_folder: Path) -> None:
    circuit = json.loads((demo_folder / "kit" / "circuit.json").read_text())
    assert f"all {digits_program().parameters:,} parameters" in README
    assert f"of {int(circuit['parts'][0]['proof_bytes']):,} bytes" in README
