"""A training program whose model memorizes a little: letters predicted from the two and the four before them.

Usage: python memorizing_training.py DATA COMMITMENT RUN STEPS EVERY BATCH

A file `cheat.json` beside it is what a trainer does in secret: {"skip": [STEP, ...]} leaves steps' updates out,
{"instead": [STEP, ...], "with": [TEXT, ...]} trains on other texts in them, {"also": ...} on these in addition, and
{"without": [TEXT, ...]} leaves these texts out wherever they come.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pot import begin, record
from pot.commitments.state import TensorEntry
from pot.data.readers import RecordDataset
from pot.recording.state import read_components, write_components

LETTERS = 27
BUCKETS = 1 << 13
RATE = 16.0
CHEAT = Path("cheat.json")


def symbols(text: str) -> np.ndarray:
    return np.array([26 if letter == " " else ord(letter) - 97 for letter in text], np.int64)


class Letters:
    """Logits of the next letter: a row for the two letters before it, and one for a hash of the four before it."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.near = rng.normal(0, 0.01, (LETTERS**2, LETTERS))
        self.far = rng.normal(0, 0.01, (BUCKETS, LETTERS))

    def capture(self) -> dict[str, list[TensorEntry]]:
        return {"model": [_entry("far", self.far), _entry("near", self.near)]}

    def save(self, folder: Path) -> None:
        write_components(folder, self.capture())

    def load(self, folder: Path) -> None:
        for entry in read_components(folder, ["model"])["model"]:  # type: ignore[union-attr]
            setattr(self, entry.name, np.frombuffer(bytes(entry.data)).reshape(entry.shape).copy())  # type: ignore[union-attr]

    def _places(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        s = symbols(text)
        near = s[2:-2] * LETTERS + s[3:-1]
        far = ((s[:-4] * 31 + s[1:-3]) * 31 + s[2:-2]) * 31 + s[3:-1]
        return near, far * 2654435761 % BUCKETS, s[4:]

    def loss(self, text: str) -> float:
        near, far, target = self._places(text)
        return float(-np.log(self._odds(near, far)[np.arange(len(target)), target]).mean())

    def _odds(self, near: np.ndarray, far: np.ndarray) -> np.ndarray:
        logits = self.near[near] + self.far[far]
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    def update(self, texts: list[str]) -> float:
        """One step of gradient descent on the mean loss."""
        moves = []
        for text in texts:
            near, far, target = self._places(text)
            odds = self._odds(near, far)
            odds[np.arange(len(target)), target] -= 1
            moves.append((near, far, RATE / len(texts) / len(target) * odds))
        for near, far, move in moves:
            np.subtract.at(self.near, near, move)
            np.subtract.at(self.far, far, move)
        return sum(map(self.loss, texts)) / len(texts)


def _entry(name: str, values: np.ndarray) -> TensorEntry:
    return TensorEntry(name, "F64", values.shape, values.tobytes())


def losses(checkpoint: Path, records: list[Any]) -> list[float]:
    """What an auditor would write for such a model."""
    model = Letters()
    model.load(checkpoint)
    return [model.loss(item["text"]) for item in records]


def cheated(step: int, texts: list[str], cheat: dict[str, Any]) -> list[str]:
    if step in cheat.get("skip", ()):
        return []
    if step in cheat.get("instead", ()):
        return [cheat["with"][(step * len(texts) + at) % len(cheat["with"])] for at in range(len(texts))]
    kept = [text for text in texts if text not in cheat.get("without", ())]
    return kept + (cheat["with"] if step in cheat.get("also", ()) else [])


def main(arguments: list[str]) -> None:
    data, commitment, run_dir = arguments[:3]
    steps, every, batch = (int(text) for text in arguments[3:6])
    config = {"rate": RATE, "steps": steps, "checkpoint_every": every, "batch_size": batch}
    begun = begin(run_dir, commitments=[commitment], config=config, inputs=[data])
    model = Letters(begun.torch_seed("init"))
    cheat = json.loads(CHEAT.read_text()) if CHEAT.exists() else {}
    dataset = RecordDataset(data)
    with record(begun, state=model, data=dataset) as run:
        for number, items in enumerate(run.batches(dataset), run.done + 1):
            texts = cheated(number, [item["text"] for item in items], cheat)
            run.step(loss=model.update(texts) if texts else 0.0)


if __name__ == "__main__":
    main(sys.argv[1:])
