"""Forgers of recorded PyTorch runs: each bends a run directory into a lie and makes every digest right that can be.

`forge_X(run, ...)` changes the run in place; the chain still holds afterwards, so only replays and screening can tell.
Runs with a schedule keep their `scheduler.json`; forgers of rates bend runs without one.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from small_training import Recipe, TrainedRun, train

from pot.canonical import canonical_bytes, sha256_hex
from pot.commitments.state import TensorEntry, entries_from_safetensors, tensors_digest
from pot.recording.state import write_components

__all__ = [
    "State", "forge_donor_moments", "forge_extra_steps", "forge_jump", "forge_largest_only", "forge_line",
    "forge_losses", "forge_other_data", "forge_rate", "forge_reversed", "forge_skipped_batches", "rewrite", "states",
    "steps_of",
]  # fmt: skip

Array = NDArray[Any]
GROUPS = "pot.groups"
KINDS = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}


@dataclass
class State:
    """The tensors of a checkpoint, to be changed: `optimizer` without its groups, which are `document`."""

    model: dict[str, Array]
    optimizer: dict[str, Array]
    document: dict[str, Any]

    @property
    def parameters(self) -> list[str]:
        return [name for group in self.document["groups"] for name in group["params"]]

    def vector(self) -> Array:
        """All trained weights in a row, float64."""
        return np.concatenate([self.model[name].astype(np.float64).ravel() for name in self.parameters])

    def set_vector(self, values: Array) -> None:
        at = 0
        for name in self.parameters:
            old = self.model[name]
            self.model[name] = values[at : at + old.size].reshape(old.shape).astype(old.dtype)
            at += old.size

    def set_rate(self, rate: float) -> None:
        for group in self.document["groups"]:
            for key in ("lr", "initial_lr"):
                if key in group:
                    group[key] = {"real": repr(rate)}

    def set_moments(self, other: Mapping[str, Array]) -> None:
        """Take another's moments; step counters stay, a forger does not get those wrong."""
        counters = {name: value for name, value in self.optimizer.items() if name.endswith("/step")}
        self.optimizer = {**other, **counters}


def steps_of(run: TrainedRun) -> list[int]:
    """The steps of the run's checkpoints."""
    return [int(event["step"]) for event in run.events() if event["type"] == "checkpoint"]


def _read(path: Path) -> dict[str, Array]:
    return {
        entry.name: np.frombuffer(bytes(entry.data), KINDS[entry.dtype]).reshape(entry.shape).copy()
        for entry in entries_from_safetensors(path.read_bytes())
    }


def _folder(run: TrainedRun, step: int) -> Path:
    return run.run_dir / f"checkpoints/step-{step:06d}"


def states(run: TrainedRun) -> dict[int, State]:
    """All checkpoints by step."""
    found = {}
    for step in steps_of(run):
        optimizer = _read(_folder(run, step) / "optimizer.safetensors")
        document = json.loads(bytes(optimizer.pop(GROUPS)))
        found[step] = State(_read(_folder(run, step) / "model.safetensors"), optimizer, document)
    return found


def _entries(arrays: Mapping[str, Array]) -> list[TensorEntry]:
    names = {np.dtype(kind): name for name, kind in KINDS.items()}
    return [TensorEntry(name, names[a.dtype], a.shape, a.tobytes()) for name, a in sorted(arrays.items())]


def rewrite(run: TrainedRun, changed: Mapping[int, State], events: list[dict[str, Any]] | None = None) -> None:
    """Write states over the run's, with all digests that follow from them. `events`: in place of the run's."""
    events = run.events() if events is None else events
    for event in events:
        if event["type"] != "checkpoint" or int(event["step"]) not in changed:
            continue
        state, folder = changed[int(event["step"])], _folder(run, int(event["step"]))
        groups = np.frombuffer(canonical_bytes(state.document), np.uint8)
        components = {"model": _entries(state.model), "optimizer": _entries({**state.optimizer, GROUPS: groups})}
        write_components(folder, components)  # type: ignore[arg-type]
        for name, entries in components.items():
            event["components"][name] = tensors_digest(name, entries)
        for file in event["files"]:
            path = run.run_dir / file["path"]
            file["sha256"], file["bytes"] = sha256_hex(path.read_bytes()), str(path.stat().st_size)
    run.restate(events)


def forge_losses(run: TrainedRun, seed: int = 0) -> None:
    """Losses as a training might have had: falling, and noisy."""
    events, rng = run.events(), np.random.default_rng(seed)
    told = [event for event in events if event["type"] == "step"]
    for place, event in enumerate(told):
        event["loss"] = repr(float(2.3 * np.exp(-3 * place / len(told)) * np.exp(rng.normal(0, 0.15))))
    run.restate(events)


Moments = Literal["kept", "zero", "fitting"]


def forge_line(
    run: TrainedRun, *, rate: float = 1e-9, moments: Moments = "kept", noise: float = 0.0, target: Array | None = None,
    seed: int = 0,
) -> None:  # fmt: skip
    """A01: a straight line from W_0 to weights that nobody trained, in as many checkpoints as the run has.

    `rate`: what the groups claim; 0 for the smallest that Adam could have gone this way with. `moments`: those of the
    honest run, zeros, or those of gradients that lead along the line. `noise`: of each checkpoint, in lengths of a
    segment. `target`: the weights at the end; random ones without it.
    """
    rng = np.random.default_rng(seed)
    found = states(run)
    start = found[0].vector()
    end = rng.permutation(start) + rng.normal(0, start.std(), start.size) if target is None else target
    last = max(found)
    step = (end - start) / last
    claimed = rate or float(np.abs(step).max())
    for number, state in found.items():
        place = start + step * number
        if 0 < number < last and noise:
            span = float(np.linalg.norm(step)) * last / (len(found) - 1) / np.sqrt(start.size)
            place += rng.normal(0, noise * span, start.size)
        state.set_vector(place)
        state.set_rate(claimed)
        if moments == "zero":
            state.set_moments({name: np.zeros_like(value) for name, value in state.optimizer.items()})
        elif moments == "fitting" and number:
            _fit(state, step, number, claimed)
    rewrite(run, found)
    forge_losses(run, seed)


def _fit(state: State, step: Array, number: int, rate: float) -> None:
    """The moments after `number` steps of one and the same gradient, which leads along `step`."""
    at = 0
    betas = state.document["groups"][0].get("betas", [{"real": "0"}] * 2)
    kept = [float(beta["real"]) ** number for beta in betas]
    for name in state.parameters:
        shape = state.model[name].shape
        own = step[at : at + state.model[name].size].reshape(shape).astype(np.float32)
        at += own.size
        gradient = -own / np.float32(np.abs(step).max())
        for key, value in (
            ("exp_avg", gradient * (1 - kept[0])), ("exp_avg_sq", gradient**2 * (1 - kept[1])),
            ("momentum_buffer", -own / np.float32(rate)),
        ):  # fmt: skip
            if f"state.{name}/{key}" in state.optimizer:
                state.optimizer[f"state.{name}/{key}"] = value.astype(np.float32)


def forge_largest_only(run: TrainedRun, *, keep: int = 5) -> None:
    """A03: the segments with the largest updates stay honest, all between two of them lies on a line, moments too."""
    found = states(run)
    steps = sorted(found)
    lengths = [float(np.linalg.norm(found[b].vector() - found[a].vector())) for a, b in itertools.pairwise(steps)]
    kept = set(np.argsort(lengths)[-keep:].tolist())
    fixed = sorted({0, len(steps) - 1} | kept | {place + 1 for place in kept})
    for one, two in itertools.pairwise(fixed):
        a, b = found[steps[one]], found[steps[two]]
        for place in range(one + 1, two):
            part = (steps[place] - steps[one]) / (steps[two] - steps[one])
            state = found[steps[place]]
            state.set_vector(a.vector() * (1 - part) + b.vector() * part)
            mixed = {
                name: (a.optimizer[name] * (1 - part) + value * part).astype(value.dtype)
                for name, value in b.optimizer.items() if name in a.optimizer
            }  # fmt: skip
            state.set_moments({**state.optimizer, **mixed})
    rewrite(run, found)


def forge_jump(run: TrainedRun, donor: TrainedRun, *, at: int, moments: Literal["own", "donor"] = "own") -> None:
    """A04: honest up to segment `at` (from 1), which ends at the donor's last weights, and honest training after it."""
    steps = steps_of(run)
    found, other = states(run), states(donor)
    state, stolen = found[steps[at]], other[max(other)]
    state.model = dict(stolen.model)
    if moments == "donor":
        state.set_moments(stolen.optimizer)
    rewrite(run, {steps[at]: state})
    if at == len(steps) - 1:
        return
    events = run.events()
    place = next(n for n, e in enumerate(events) if e["type"] == "checkpoint" and e["step"] == str(steps[at]))
    run.relink(events[: place + 1])
    run.go_on()


def forge_reversed(run: TrainedRun) -> None:
    """A18, A19: the states told backwards, as ascent would be; groups and counters are those of their new places."""
    found = states(run)
    steps = sorted(found)
    told = {}
    for step, other in zip(steps, reversed(steps), strict=True):
        told[step] = State(dict(found[other].model), dict(found[step].optimizer), found[step].document)
        known = found[other].optimizer or {name: np.zeros_like(v) for name, v in found[step].optimizer.items()}
        if found[step].optimizer:
            told[step].set_moments(known)
    rewrite(run, told)


def forge_donor_moments(run: TrainedRun, donor: TrainedRun, *, at: int) -> None:
    """A21: honest weights, and at the end of segment `at` the optimizer state of another run."""
    step = steps_of(run)[at]
    found = states(run)[step]
    found.set_moments(states(donor)[step].optimizer)
    rewrite(run, {step: found})


def forge_extra_steps(run: TrainedRun, *, counters: bool = True) -> None:
    """A10: after every step a second one on the same batch, which the transcript does not tell.

    `counters`: put the optimizer's step counters back to what they should be.
    """

    def again(_: int, model: Any, optimizer: Any, loss: Callable[[], Any]) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    _again(run, run.recipe, again)
    found = states(run)
    for step, state in found.items() if counters else ():
        for name, value in state.optimizer.items():
            if name.endswith("/step"):
                state.optimizer[name] = np.full_like(value, step)
    rewrite(run, found)


def forge_skipped_batches(run: TrainedRun, *, part: float = 0.2) -> None:
    """A11: a part of the batches is not trained on; another one is, again, in its place."""
    _again(run, replace(run.recipe, skip=part))


def forge_other_data(run: TrainedRun, *, part: float = 0.2) -> None:
    """A12: a part of the labels is not the committed one."""
    _again(run, replace(run.recipe, poison=part))


def forge_rate(run: TrainedRun, *, factor: float = 3.0) -> None:
    """A20: trained with another rate than stated."""
    stated = run.recipe.rate
    _again(run, replace(run.recipe, factor=factor))
    found = states(run)
    for state in found.values():
        state.set_rate(stated)
    rewrite(run, found)


def _again(run: TrainedRun, recipe: Recipe, extra: Any = None) -> None:
    shutil.rmtree(run.run_dir)
    train(run.folder, recipe, extra)
