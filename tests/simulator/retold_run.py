"""Runs of the toy program told anew: what its states would be from other first weights, or on records of other values.

A forger needs no training for this, only the seed: the toy's arithmetic, the committed order and the generators' state.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence

from recorded_run import RecordedRun
from toy_training import Sums

from pot.audit.replaying.replay import committed_tensors
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.recording.state import restore_rng

__all__ = ["first_weights", "retell", "values_of"]


def values_of(run: RecordedRun) -> list[int]:
    """The value of each record of the run's file."""
    return [json.loads(line)["value"] for line in (run.folder / "train.jsonl").read_bytes().splitlines()]


def first_weights(run: RecordedRun) -> list[int]:
    """The weights that the run started from."""
    initial = run.chain().initial
    assert initial is not None
    found = committed_tensors(run.run_dir, initial, "model")
    assert found is not None
    data = bytes(found[0].data)
    return [int.from_bytes(data[at : at + 8], "little", signed=True) for at in range(0, len(data), 8)]


def simulate(
    run: RecordedRun, values: Sequence[int], weights: Sequence[int]
) -> tuple[Sums, dict[int, tuple[Sums, int]]]:
    """The last state of a training on `values` from `weights`, and by step the state and the loss."""
    precommit, nonce = run.precommit, bytes.fromhex(run.events()[0]["nonce"])
    seed, size, batch = run_seed(precommit.sha256(), nonce), len(values), int(precommit.order.batch)
    own = random.getstate()
    try:
        restore_rng(json.loads((run.run_dir / "checkpoints/step-000000/state.json").read_bytes())["rng"], what="rng")
        source, found = _copy(weights, [0] * len(weights)), {}
        for step in range(1, int(precommit.steps) + 1):
            records = batch_records(seed, size, batch, step)[2]
            loss = source.update([{"id": record, "value": values[record]} for record in records])
            found[step] = (_copy(source.weights, source.moments), loss)
        return source, found
    finally:
        random.setstate(own)


def _copy(weights: Sequence[int], moments: Sequence[int]) -> Sums:
    source = Sums(0)
    source.weights, source.moments = list(weights), list(moments)
    return source


def retell(
    run: RecordedRun, *, values: Sequence[int] | None = None, weights: Sequence[int] | None = None
) -> Mapping[int, tuple[Sums, int]]:
    """Write the states of another training into the run, with every digest that follows from them."""
    start = list(weights) if weights is not None else first_weights(run)
    _, found = simulate(run, values if values is not None else values_of(run), start)
    events = run.events()
    for event in events:
        if event["type"] == "step":
            event["loss"] = str(found[int(event["step"])][1])
    run.restate(events)
    run.bend_tensors(0, "model", lambda _: start)
    for step in [int(event["step"]) for event in events if event["type"] == "checkpoint" and event["step"] != "0"]:
        state = found[step][0]
        run.bend_tensors(step, "model", lambda _, state=state: state.weights)
        run.bend_tensors(step, "optimizer", lambda _, state=state: state.moments)
    return found
