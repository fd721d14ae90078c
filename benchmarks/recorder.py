"""What recording costs: training with and without it, hashing, replaying, and checking a transcript.

    make bench-recorder

Each mode trains in a process of its own, in turns, and CPU seconds of all threads are compared, so that work beside
training counts too. `--small` runs a hundredth of it, to see that it runs.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from blake3 import blake3
from table import Row, finish
from transcript import transcript_rows

from pot.audit.replaying.replay import Replayer, Request
from pot.commitments.state import TensorEntry, tensors_digest
from pot.data.commit import commit, write_committed
from pot.recording.checking.finished import load_run
from pot.recording.transcript import StartEvent

PROGRAM = Path(__file__).with_name("recorder_program.py")
ROOT = PROGRAM.parent.parent
_HASHED = 10  # times


def best(work: Callable[[], Any], times: int = 5) -> float:
    """The shortest wall seconds of some runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def prepare(folder: Path, records: int) -> None:
    """The program and its committed data."""
    draw = np.random.default_rng(0)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as stream:
        for _ in range(records):
            stream.write(json.dumps({"tokens": draw.integers(0, 256, 129).tolist()}, separators=(",", ":")) + "\n")
    write_committed(commit([folder / "train.jsonl"], "json/1", "training"), folder / "train.json")
    shutil.copyfile(PROGRAM, folder / "program.py")


def train(folder: Path, kind: str, mode: str, steps: int, segment: int, size: list[str]) -> dict[str, Any]:
    """One process. "plain" begins a run, "recorded" goes on with it: so both have one seed."""
    if kind == "plain":
        shutil.rmtree(folder / "run", ignore_errors=True)
    words = [sys.executable, "program.py", mode, str(steps), str(segment), *size, "result.json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **({"BENCH_PLAIN": "1"} if kind == "plain" else {})}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def training_rows(folder: Path, small: bool) -> list[Row]:
    """Without a recorder, in segment mode and in step mode, in turns."""
    size = ["64", "1", "4"] if small else ["384", "6", "4"]
    plans = [
        ("segment", 8 if small else 200, 4 if small else 100, 1.01),
        ("step", 4 if small else 100, 4 if small else 100, 1.10),
    ]
    rows, turns = [], 1 if small else 3
    for mode, steps, segment, goal in plans:
        pairs = []
        for _ in range(turns):
            plain, recorded = (train(folder, kind, mode, steps, segment, size) for kind in ("plain", "recorded"))
            if plain["weights"] != recorded["weights"]:
                raise SystemExit(f"{mode}: the recorder changed the weights")
            pairs.append((plain, recorded))
        step = median(plain["wall"] for plain, _ in pairs) / steps
        what = (
            f"the same {steps} steps of {1e3 * step:.0f} ms without, {pairs[0][0]['parameters'] / 1e6:.1f} M parameters"
        )
        for kind in ("cpu", "wall"):
            ratio = median(recorded[kind] / plain[kind] for plain, recorded in pairs)
            value = median(recorded[kind] for _, recorded in pairs)
            rows.append(Row(f"training, {mode} mode, {kind}", value, "s", what, ratio, goal if not small else None))
        extra = min(max(0, recorded["peak"] - plain["peak"]) for plain, recorded in pairs)
        state = pairs[0][1]["state"]
        if mode == "step":
            rows.append(floor_row(state, median(plain["cpu"] for plain, _ in pairs) / steps))
        rows.append(Row(f"extra memory, {mode} mode", extra / 1e6, "MB", "one copy of the state", extra / state, 1.05))
    return rows


def floor_row(state: int, step: float) -> Row:
    """What no recorder of every step can be below, by CPU: the state's bytes through BLAKE3, one core, nothing else."""
    data = np.random.default_rng(2).integers(0, 256, state, dtype=np.uint8)
    began = time.process_time()
    for _ in range(_HASHED):
        blake3(data).digest()
    seconds = (time.process_time() - began) / _HASHED
    what = f"raw BLAKE3 of the state, {state / 1e6:.0f} MB, beside a step of {1e3 * step:.0f} CPU ms"
    return Row("limit of step mode, cpu", 1e3 * seconds, "CPU ms", what, 1 + seconds / step, None)


def digest_row(small: bool) -> Row:
    """The digest of a model's tensors against BLAKE3 over the same bytes in one piece; one thread each."""
    shapes = [(512, 512), (2048, 512), (512, 2048), (512,), (512,)] * (1 if small else 12)
    draw = np.random.default_rng(1)
    arrays = [draw.standard_normal(shape, dtype=np.float32) for shape in shapes]
    entries = [
        TensorEntry(f"t{at:03}", "F32", array.shape, memoryview(array.reshape(-1).view(np.uint8)))
        for at, array in enumerate(arrays)
    ]
    whole = np.concatenate([array.reshape(-1) for array in arrays]).view(np.uint8)
    ours, raw = best(lambda: tensors_digest("model", entries)), best(lambda: blake3(whole).digest())
    return Row("state digest", whole.nbytes / ours / 1e9, "GB/s", f"raw BLAKE3, {whole.nbytes / raw / 1e9:.2f} GB/s",
               ours / raw, 1.25)  # fmt: skip


def replay_rows(folder: Path, small: bool) -> list[Row]:
    """One segment again, from its checkpoint, in a new process behind walls; start-up and loading included.

    What a replay costs before its first step and after its last does not depend on the segment. It is measured by a
    replay of no step from the same checkpoint, and gives the length from which a replay keeps within its goal.
    """
    size, steps = (["64", "1", "4"], 8) if small else (["384", "6", "4"], 300)
    segment = steps // 2
    shutil.rmtree(folder / "run", ignore_errors=True)
    trained = train(folder, "recorded", "segment", steps, segment, size)
    run = folder / "run"
    precommit, transcript, chain = load_run(run)
    start = transcript.events[0]
    if not isinstance(start, StartEvent):
        raise SystemExit("the run has no start")
    replayer = Replayer(run, precommit, start.nonce, [folder / "train.jsonl"], folder)
    second = chain.segments[1]

    def nothing() -> None:
        with replayer.produced(Request(second.first - 1, second.first - 1, second.start_state)) as produced:
            if not produced.complete():
                raise SystemExit(f"the replay of no step: {produced.ended.last_words}")

    def whole() -> None:
        found = replayer.segment(second)
        if found.outcome != "MATCH":
            raise SystemExit(f"the replay gives {found.outcome}: {found.detail}")

    around, all_of_it = spent(nothing), spent(whole)
    rows = []
    for kind in ("cpu", "wall"):
        step = trained[kind] / steps
        ratio, without = all_of_it[kind] / (segment * step), (all_of_it[kind] - around[kind]) / (segment * step)
        what = f"training its {segment} steps of {1e3 * step:.0f} ms"
        rows.append(Row(f"replay of a segment, {kind}", all_of_it[kind], "s", what, ratio, None if small else 1.1))
        rows.append(Row(f"its steps alone, {kind}", all_of_it[kind] - around[kind], "s", what, without, None))
        least = around[kind] / (0.1 * step)
        what = f"the segment from which it is a tenth, at these steps: {least:.0f} steps"
        rows.append(Row(f"limit: its start and end, {kind}", around[kind], "s", what, least / segment, None))
    return rows


def spent(work: Callable[[], None]) -> dict[str, float]:
    """CPU seconds, those of the processes that it waited for too, and wall seconds."""

    def cpu() -> float:
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

    began = cpu(), time.perf_counter()
    work()
    return {"cpu": cpu() - began[0], "wall": time.perf_counter() - began[1]}


def main(arguments: list[str]) -> None:
    small = "--small" in arguments
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, 40 if small else 4000)
        rows += training_rows(folder, small)
        rows.append(digest_row(small))
        rows += replay_rows(folder, small)
    rows += transcript_rows(0.01 if small else 1.0)
    finish("recorder", rows)


if __name__ == "__main__":
    main(sys.argv[1:])
