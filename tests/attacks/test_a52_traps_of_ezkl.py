"""A52, where ezkl lies open: provers that hang, a table that others wrote, keys and settings that it does not read.

Each trap is first sprung, with the one thing that keeps us out of it taken away; then it is shown to be shut.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ezkl")

from forged_steps import honest, leave_out, two_steps_on
from known_secret import known_srs, lagrange
from real_steps import ENGINE, RealBench
from small_steps import LIMB_BITS, small_steps
from step_attacks import SECRET, Bench, changed

from pot.canonical import sha256_hex
from pot.zk import engine_process
from pot.zk.circuit import table_name
from pot.zk.circuits.field import ELEMENT_BYTES, MODULUS, Vector, inverse
from pot.zk.circuits.packing import blinds_of, state_vectors
from pot.zk.engine import EngineFailure, EzklEngine, Limits
from pot.zk.semantics.exact import run
from pot.zk.srs import classify

STEPS = small_steps()
Endless = tuple[RealBench, list[Vector]]
PROC = Path("/proc")
watches = pytest.mark.skipif(not (PROC / "self" / "cwd").exists(), reason="processes are watched in /proc")


class Watch:
    """Who works below a folder, looked at ten times a second: process ids, groups, and the files that were there."""

    def __init__(self, folder: Path) -> None:
        self.pids: set[int] = set()
        self.files: set[str] = set()
        self._folder, self._done = folder, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.1):
            for entry in PROC.iterdir():
                with suppress(OSError):
                    if entry.name.isdigit() and Path(os.readlink(entry / "cwd")).is_relative_to(self._folder):
                        self.pids.add(int(entry.name))
            self.files |= {path.name for path in self._folder.glob("*/*")}


def alive(pid: int) -> bool:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def left(pids: set[int]) -> set[int]:
    """Those that still run; a killed process takes a moment to end."""
    for _ in range(100):
        if not any(map(alive, pids)):
            return set()
        time.sleep(0.05)
    return set(filter(alive, pids))


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "rooms"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def with_a_helper(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on a child of the engine starts a process of its own, as a prover that works with several might."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nsleep 1000 &\nexec "{sys.executable}" "$@"\n')
    script.chmod(0o700)
    monkeypatch.setattr(engine_process.sys, "executable", str(script))


@pytest.fixture(scope="module")
def endless() -> Endless:
    """A circuit and a prover's inputs with a limb outside the table: ezkl's own prover waits for ever."""
    bench, vectors = honest(STEPS["round to one limb"])
    limb = next(place for place in bench.places("witness") if place.tag == "r.0")
    real = RealBench.of(bench)
    return real, real.asked(changed(vectors, (limb, 1 << 12)))[0]


@watches
def test_a52_a_real_proof_that_never_ends_is_stopped_with_all_that_it_started(
    endless: Endless, rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, inputs = endless
    assert not ENGINE.mock(real.folder, inputs)[0]  # which says why
    with_a_helper(monkeypatch, tmp_path)
    engine, folders = EzklEngine(Limits(wall_seconds=8)), set(rooms.iterdir())
    with Watch(rooms) as watch, pytest.raises(EngineFailure, match="prove failed: it was stopped after 8") as caught:
        engine.prove(real.folder, inputs, None)
    assert "\n" not in str(caught.value)
    assert "witness.json" in watch.files  # it was proving
    assert len(watch.pids) == 2
    assert not left(watch.pids)
    assert set(rooms.iterdir()) == folders
    assert engine.usage == []


@watches
def test_a52_without_killing_the_group_a_helper_outlives_its_prover(
    endless: Endless, rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, inputs = endless
    with_a_helper(monkeypatch, tmp_path)
    monkeypatch.setattr(engine_process.os, "killpg", os.kill)
    with Watch(rooms) as watch, pytest.raises(EngineFailure, match="after 4 seconds"):
        EzklEngine(Limits(wall_seconds=4)).prove(real.folder, inputs, None)
    outlived = left(watch.pids)
    for pid in outlived:
        os.kill(pid, signal.SIGKILL)
    assert len(watch.pids) == 2
    assert len(outlived) == 1


@contextmanager
def cache_of_children(
    entering: Callable[[Path], None] | None, leaving: Callable[[Path], None] | None
) -> Iterator[None]:
    """Puts something into the table cache of every child, or takes something out of it."""
    enter, leave = engine_process.Child.__enter__, engine_process.Child.__exit__

    def entered(child: engine_process.Child) -> engine_process.Child:
        enter(child)
        if entering is not None:
            entering(child.home / "cache")
        return child

    def left_it(child: engine_process.Child, *exception: object) -> None:
        if leaving is not None and (child.home / "cache").is_dir():
            leaving(child.home / "cache")
        leave(child, *exception)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine_process.Child, "__enter__", entered)
        patched.setattr(engine_process.Child, "__exit__", left_it)
        yield


def test_a52_ezkl_takes_a_table_of_the_cache_as_it_is(tmp_path: Path) -> None:
    """A row that no honest step needs says 2^8, one more than a limb may be. Name, settings and honest proofs stay
    well; only the key is another one, whose step `test_a54_limbs_that_hold_more_than_a_limb` forges. No child has a
    cache but its own empty one (`test_a52_the_table_cache_of_the_user_is_never_read`).
    """
    step = STEPS["round to one limb by a whole limb"]
    bench, vectors = honest(step)
    with cache_of_children(None, lambda cache: copied(cache, tmp_path)):
        right = RealBench.of(bench)
    name = table_name(step.program, bench.parts.shape)
    for file in ("inputs", "outputs"):
        table = bytearray((tmp_path / name / file).read_bytes())
        table[ELEMENT_BYTES : 2 * ELEMENT_BYTES] = (1 << LIMB_BITS).to_bytes(ELEMENT_BYTES, "little")
        (tmp_path / name / file).write_bytes(table)
    with cache_of_children(lambda cache: copied(tmp_path, cache), None):
        poisoned = RealBench.of(bench)
        inputs, wanted = poisoned.asked(vectors)
        proof = ENGINE.prove(poisoned.folder, inputs, None)
    assert (poisoned.settings, poisoned.tables) == (right.settings, right.tables) == (right.settings, (name,))
    assert poisoned.verifying_key != right.verifying_key
    assert poisoned.verifies(proof, wanted)
    assert not right.verifies(proof, wanted)


def copied(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def real() -> RealBench:
    bench, _ = honest(STEPS["two tensors of state"])
    return RealBench.of(bench)


def test_a52_ezkl_reads_neither_all_of_a_key_nor_all_of_its_settings(real: RealBench) -> None:
    """So equal answers do not mean equal files: both are compared by digest, and settings by what they say besides."""
    step = STEPS["two tensors of state"]
    inputs, wanted = real.asked(honest(step)[1])
    proof = ENGINE.prove(real.folder, inputs, None)
    assert real.verifies(proof, wanted)
    assert real.verifies(proof, wanted, verifying_key=real.verifying_key[:-1] + bytes([real.verifying_key[-1] ^ 1]))
    settings = json.loads(real.settings)
    settings["run_args"].update(input_visibility="Public", output_visibility="Private", input_scale=7)
    settings["model_instance_shapes"] = [[1 << 40]]
    assert real.verifies(proof, wanted, settings=json.dumps(settings).encode())


def test_a52_settings_that_hang_ezkl_are_stopped(real: RealBench) -> None:
    """One number of columns keeps ezkl busy for ever: nobody but the time limit ends it."""
    inputs, wanted = real.asked(honest(STEPS["two tensors of state"])[1])
    proof = ENGINE.prove(real.folder, inputs, None)
    settings = json.loads(real.settings)
    settings["run_args"]["num_inner_cols"] = 1 << 28
    engine = EzklEngine(verify_limits=Limits(wall_seconds=3, cpu_seconds=3, memory_bytes=2 << 30, file_bytes=1 << 20))
    with pytest.raises(EngineFailure, match=r"without an answer") as caught:
        engine.verify([(proof, wanted)], json.dumps(settings).encode(), real.verifying_key, real.srs)
    assert "\n" not in str(caught.value)


def test_a52_bytes_that_are_no_key_and_no_reference_string_are_one_sentence(real: RealBench) -> None:
    vectors, noise = [[1, 2, 3]], bytes(range(256)) * 20
    for key, srs in ((noise, real.srs), (b"", real.srs), (real.verifying_key, noise), (real.verifying_key, b"")):
        assert ENGINE.verify([(noise, [0])], real.settings, key, srs) == [False]
        with pytest.raises(EngineFailure, match="commit failed") as caught:
            ENGINE.commit(vectors, real.settings, key, srs)
        assert "\n" not in str(caught.value)


def test_a52_the_key_of_a_circuit_that_checks_less_proves_any_next_state(
    real: RealBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prover's own key under the pinned circuit's name; that digests are compared is all that stops it."""
    step = STEPS["two tensors of state"]
    forged = two_steps_on(step)
    leave_out(monkeypatch, "next")
    blind = RealBench.of(Bench.of(step.program))
    inputs, wanted = blind.asked(forged)
    proof = ENGINE.prove(blind.folder, inputs, None)
    assert blind.verifies(proof, wanted)
    assert not real.verifies(proof, wanted)


def test_a52_whoever_made_the_reference_string_opens_a_point_to_any_weights(real: RealBench) -> None:
    """One blind makes up for any other weight, where the secret is known; so every string has a class, and a level."""
    step = STEPS["two tensors of state"]
    bench, vectors = honest(step)
    own = known_srs(bench.parts.shape.logrows)
    enemy = RealBench.of(bench, own)
    assert enemy.proves(vectors)
    result = run(step.program, step.state, step.batch).next
    other = {**result, "w": result["w"] + np.arange(6).reshape(2, 3) * 100}
    blinds = blinds_of(bench.parts.layout, SECRET, "state", 1)
    weights = lagrange(bench.parts.shape.logrows)
    (sold,) = state_vectors(step.program, bench.parts.layout, other, blinds, start=True)
    gap = sum((new - old) * weight for new, old, weight in zip(sold, vectors["after.0"], weights, strict=False))
    blinds[0][-1] = (blinds[0][-1] - gap * inverse(weights[len(sold) - 1])) % MODULUS
    opened = {**vectors, "after.0": state_vectors(step.program, bench.parts.layout, other, blinds, start=True)[0]}
    assert enemy.points(opened) == enemy.points(vectors)
    assert real.points(opened) != real.points(vectors)
    assert classify(sha256_hex(own), {}) == "insecure-local"
