"""A training program without torch: integer sums with momentum and random skips, recorded through the state seam.

Usage: python toy_training.py DATA COMMITMENT RUN STEPS EVERY BATCH [STATE_EVERY]
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

from pot import begin, record
from pot.commitments.state import TensorEntry
from pot.data.readers import RecordDataset
from pot.recording.state import read_components, write_components

WIDTH = 4
RATE = 3


def config(steps: int, every: int, batch: int) -> dict[str, object]:
    return {"rate": RATE, "steps": steps, "checkpoint_every": every, "batch_size": batch, "decay": 0.5}


class Sums:
    """Integer weights and moments."""

    def __init__(self, seed: int) -> None:
        self.weights = [seed % 1000 + index for index in range(WIDTH)]
        self.moments = [0] * WIDTH

    def capture(self) -> dict[str, list[TensorEntry]]:
        return {"model": [_entry("weights", self.weights)], "optimizer": [_entry("moments", self.moments)]}

    def save(self, folder: Path) -> None:
        write_components(folder, self.capture())

    def load(self, folder: Path) -> None:
        components = read_components(folder, ["model", "optimizer"])
        self.weights = list(struct.unpack(f"<{WIDTH}q", bytes(components["model"][0].data)))
        self.moments = list(struct.unpack(f"<{WIDTH}q", bytes(components["optimizer"][0].data)))

    def update(self, batch: list[dict[str, int]]) -> int:
        for item in batch:
            place = item["id"] % WIDTH
            self.moments[place] = self.moments[place] // 2 + item["value"]
            if random.random() < 0.9:
                self.weights[place] += RATE * self.moments[place]
        return sum(self.weights)


def _entry(name: str, values: list[int]) -> TensorEntry:
    return TensorEntry(name, "I64", (len(values),), struct.pack(f"<{len(values)}q", *values))


def main(arguments: list[str]) -> None:
    data, commitment, run_dir = arguments[:3]
    steps, every, batch = (int(text) for text in arguments[3:6])
    begun = begin(
        run_dir, commitments=[commitment], config=config(steps, every, batch), inputs=[data], semantics="exact",
        state_every=int(arguments[6]) if len(arguments) > 6 else None,
    )  # fmt: skip
    source = Sums(begun.torch_seed("init"))
    dataset = RecordDataset(data)
    with record(begun, state=source, data=dataset) as run:
        for items in run.batches(dataset):
            run.step(loss=source.update(items))


if __name__ == "__main__":
    main(sys.argv[1:])
