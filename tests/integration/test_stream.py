"""An iterable dataset: killed within a pass, gone on with, replayed from within a pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trained_examples import Example, write_texts

from pot import begin, record
from pot.errors import Refused
from pot.recording.checking.finished import load_run


def test_a_killed_stream_goes_on_and_replays(tmp_path: Path) -> None:
    write_texts(tmp_path, 3600)
    example = Example(tmp_path, "train_stream.py")
    example.kill("run", 300, after=160)
    assert "resuming run after step 150 of 300" in example.finish("run", 300)
    precommit, transcript, chain = load_run(tmp_path / "run")
    assert precommit.order.method == "stream/1"
    assert len(chain.segments) == 6
    assert b'"epoch":"2"' in transcript.data  # 112 steps a pass
    assert example.released("run") == chain.end.model_blake3
    replay = example.replay("run", seed=7)
    assert replay.outcome == "MATCH", replay


class Drawing(torch.utils.data.IterableDataset[Any]):
    """Draws from the global generator while training does so too: a pass cannot be begun again."""

    def __iter__(self) -> Any:
        for _ in range(40):
            yield torch.rand(4)


def test_a_stream_that_comes_out_otherwise_is_not_gone_on_with(tmp_path: Path) -> None:
    commitment = write_texts(tmp_path / "data", 40)

    def train(stop: int | None) -> None:
        begun = begin(
            tmp_path / "run", commitments=[commitment], batch_size=4, steps=20, checkpoint_every=5, stream=True
        )
        torch.manual_seed(begun.torch_seed("init"))
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = torch.utils.data.DataLoader(Drawing(), batch_size=4)
        with record(begun, model=model, optimizer=optimizer, data=loader) as run:
            for batch in run.batches(loader):
                optimizer.zero_grad()
                model(batch).square().mean().backward()
                optimizer.step()
                run.step()
                if run.done == stop:
                    break

    train(7)
    with pytest.raises(Refused, match="does not yield the batch of step 2 again"):
        train(None)
