"""The losses of an auditor for models of train_text.py: how badly each text's bytes are predicted.

    pot audit memorization run --evaluate evaluate_text.py --data train.jsonl --held-out other.jsonl --out hint.json
    pot audit canaries test run --registration canaries.json --opening opening.json --evaluate evaluate_text.py
        --out canary-hint.json

It is the auditor's own program; where it differs from what training computed, the hint is weaker, not wrong.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from train_text import PREDICTED, WINDOW, ByteModel


def window(text: str) -> list[int]:
    """The middle of a text as bytes, as training sees it."""
    data = text.encode()
    start = max(0, len(data) - WINDOW - PREDICTED) // 2
    return list(data[start : start + WINDOW + PREDICTED].ljust(WINDOW + PREDICTED, b" "))


def losses(checkpoint: Path, records: list[dict[str, str]]) -> list[float]:
    """Mean loss in nats a byte of each record under the model of a checkpoint."""
    model = ByteModel()
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    windows = torch.tensor([window(record["text"]) for record in records])
    with torch.no_grad():
        logits = model(windows).transpose(1, 2)
        return cross_entropy(logits, windows[:, WINDOW:], reduction="none").mean(1).tolist()
