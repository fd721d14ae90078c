"""Proving many steps: order, checks before the work, going on after any end, and what a proof is said to cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pointed_run import SECRET, STEPS, PointedRun, StandIn, small_program, stand_in_kit

from pot.data.readers import RecordDataset
from pot.errors import EnvironmentFailure, Refused
from pot.recording.checking.finished import load_run
from pot.recording.transcript import Points
from pot.zk import cost, schedule
from pot.zk.circuits import proof_cost
from pot.zk.circuits.parts import choose_shape
from pot.zk.engine import GIB
from pot.zk.kit import commit_points
from pot.zk.runs.rewind import points_of, step_inputs
from pot.zk.runs.segment import StepInputs
from pot.zk.semantics.builder import Builder
from pot.zk.verifier import Expected, read_step_proof, verify_steps
from pot.zk.workers import in_processes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PointedRun:
    folder = tmp_path_factory.mktemp("schedule")
    return PointedRun(folder, stand_in_kit(folder / "kit", small_program(), columns=2), StandIn(folder / "training"))


class Work:
    """The steps of the finished run, to be proven into a folder."""

    def __init__(self, run: PointedRun, folder: Path) -> None:
        self.kit, self.out, self.engine = run.kit, folder / "out", StandIn(folder / "prover")
        self.run = run
        self.precommit, self.transcript, self.chain = load_run(run.run_dir)
        self.told: list[tuple[int, int]] = []

    def inputs(self, numbers: list[int]) -> Iterator[Any]:
        records = RecordDataset(self.run.data)
        return step_inputs(
            self.run.run_dir, self.precommit, self.transcript, self.chain, self.kit.program, numbers, records
        )

    def points(self, number: int) -> Any:
        return points_of(self.chain, number)

    def check(self, steps: Any) -> None:
        schedule.check_points(self.kit, SECRET, steps, self.points, self.engine)

    def prove(self, numbers: list[int], workers: int = 1) -> None:
        schedule.prove_steps(
            self.kit, self.inputs(numbers), len(numbers), secret=SECRET, precommit_sha256=self.precommit.sha256(),
            points_of=self.points, folder=self.out, engine=self.engine, workers=workers,
            progress=lambda done, total: self.told.append((done, total)),
        )  # fmt: skip

    def verified(self) -> list[int]:
        """The steps whose files verify."""
        proofs = [read_step_proof(path.read_bytes()) for path in sorted(self.out.glob("*.json"))]
        expected = [Expected(self.precommit.sha256(), int(p.step), self.points(int(p.step))) for p in proofs]
        verify_steps(
            proofs, kit=self.kit.verifying, circuit_sha256=self.kit.circuit.sha256(), expected=expected,
            engine=self.engine,
        )  # fmt: skip
        return [int(proof.step) for proof in proofs]

    def parts(self) -> list[str]:
        """The names of kept parts."""
        return sorted(path.name for path in (self.out / "parts").glob("*"))


@pytest.fixture
def work(finished: PointedRun, tmp_path: Path) -> Work:
    return Work(finished, tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_step_is_proven_and_verifies(work: Work, workers: int) -> None:
    work.prove([1, 2, 5], workers)
    assert work.verified() == [1, 2, 5]
    assert work.told == [(done, 6) for done in range(1, 7)]
    assert not (work.out / "parts").exists()


def test_the_points_of_all_steps_are_compared_first(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "BLOCK", 3)
    steps = list(work.inputs([*range(1, STEPS + 1)]))
    work.check(steps)
    for at in (0, 3, 7):
        batch = {name: array.copy() for name, array in steps[at].batch.items()}
        batch["image"].flat[0] ^= 1
        with pytest.raises(Refused, match=rf"step {at + 1}: the points batch.*are not those in the transcript"):
            work.check([*steps[:at], replace(steps[at], batch=batch), *steps[at + 1 :]])
    with pytest.raises(Refused, match=r"step 1: the points before, batch, after are not"):
        schedule.check_points(work.kit, bytes(32), steps, work.points, work.engine)
    assert work.engine.proofs == 0


def test_a_value_outside_its_range_is_told_with_its_step(work: Work) -> None:
    steps = list(work.inputs([4]))
    state = {name: array.copy() for name, array in steps[0].before.items()}
    state["0.weight"][:] = 1 << 34
    with pytest.raises(Refused, match=r"^step 4: "):
        work.check([replace(steps[0], before=state)])


def test_a_step_beyond_the_circuit_s_last_is_refused(work: Work) -> None:
    step = next(work.inputs([4]))
    with pytest.raises(Refused, match="step 65537: the circuit proves steps up to 65536 only"):
        work.check([replace(step, number=65537)])


def test_points_are_compared_again_where_a_part_is_proven(work: Work) -> None:
    one, other = work.inputs([1, 2])
    statement = schedule.Statement(
        work.precommit.sha256(), SECRET, work.kit.folder.absolute(), work.kit.circuit.sha256()
    )
    job = schedule.Job(statement, one, work.points(1), 0, None, work.engine)
    assert schedule.prove_job(job).proof
    for bent in (
        replace(job, points=work.points(2)),
        replace(job, inputs=other),
        replace(job, statement=replace(statement, secret=bytes(32))),
    ):
        with pytest.raises(Refused, match="are not those in the transcript"):
            schedule.prove_job(bent)
    with pytest.raises(Refused, match="holds another circuit here"):
        schedule.prove_job(replace(job, statement=replace(statement, circuit_sha256="00" * 32)))
    assert work.engine.proofs == 1
    assert "secret" not in repr(statement)


def test_a_float_step_is_proven_with_the_next_state_that_was_recorded(tmp_path: Path) -> None:
    b = Builder(limb_bits=8)
    weight = b.state("w", [2], bits=4, width=6)
    x = b.batch("x", [1, 2], kind="signed", bits=4, width=3)
    b.set_next(weight, b.add(weight, b.reshape(x, [2])), slack=2)
    kit, engine = (
        stand_in_kit(tmp_path / "kit", b.program(label="", batch=1, max_steps=4)),
        StandIn(tmp_path / "prover"),
    )
    before, batch, exact = np.array([5, -3]), np.array([[2, 1]]), np.array([7, -2])

    def step(distance: int) -> tuple[StepInputs, Points]:
        after = {"w": exact + distance}
        states = [(0, {"w": before}), (1, after)]
        first, last, point = commit_points(kit.verifying, SECRET, states, [(1, {"x": batch})], engine)
        points = Points(before=first, batch=point, after=last)
        return StepInputs(1, {"w": before}, {"x": batch}, after), points

    for distance in (0, 3, -3):
        inputs, points = step(distance)
        schedule.check_points(kit, SECRET, [inputs], lambda _, found=points: found, engine)  # type: ignore[misc]
        statement = schedule.Statement("ab" * 32, SECRET, kit.folder, kit.circuit.sha256())
        assert schedule.prove_job(schedule.Job(statement, inputs, points, 0, None, engine)).proof
    inputs, points = step(4)
    with pytest.raises(Refused, match=r"^step 1: "):
        schedule.check_points(kit, SECRET, [inputs], lambda _: points, engine)


def test_a_kept_part_is_used_only_if_it_verifies(work: Work) -> None:
    work.engine.fails = {2, 4}
    with pytest.raises(EnvironmentFailure, match=r"step 1: .*out of memory; step 2: .*; what is proven is kept"):
        work.prove([1, 2])
    assert work.parts() == ["step-000001-00.proof", "step-000002-00.proof"]
    one, two = (work.out / "parts" / name for name in work.parts())
    two.write_bytes(one.read_bytes())  # another step's
    work.prove([1, 2])
    assert work.engine.proofs == 7  # both second parts, and the first of step 2 again
    assert work.verified() == [1, 2]


@pytest.mark.parametrize("bent", [b"", b"\0", bytes(700)])
def test_a_kept_part_that_is_none_is_proven_anew(work: Work, bent: bytes) -> None:
    (work.out / "parts").mkdir(parents=True)
    (work.out / "parts" / "step-000003-01.proof").write_bytes(bent)
    work.prove([3])
    assert work.engine.proofs == 2
    assert work.verified() == [3]


def test_failures_of_three_steps_end_the_work(work: Work) -> None:
    work.engine.fails = range(1, 100)
    with pytest.raises(EnvironmentFailure, match=r"step 1: .*step 2: .*step 3: "):
        work.prove([*range(1, 9)])
    assert work.engine.proofs == 5  # both parts of steps 1 and 2, and one of step 3


def test_a_worker_that_dies_is_one_sentence() -> None:
    with pytest.raises(EnvironmentFailure, match="a worker process died"):
        list(in_processes(os._exit, [3, 4], 2))


def test_jobs_are_made_as_they_are_needed() -> None:
    made: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    results = in_processes(abs, jobs(), 2)
    assert next(results) in (0, 1, 2)
    assert len(made) <= 4
    assert sorted([*results, -1])[-1] == 19


INTERRUPTED = """
import signal, sys
from pathlib import Path
sys.path.insert(0, {simulator!r})
from pointed_run import SECRET, StandIn
from pot.recording.checking.finished import load_run
from pot.data.readers import RecordDataset
from pot.zk.kit import open_kit
from pot.zk.runs.rewind import points_of, step_inputs
from pot.zk.schedule import prove_steps

if __name__ == "__main__":
    run, out = Path({run!r}), Path({out!r})
    kit = open_kit(run / "kit")
    precommit, transcript, chain = load_run(run / "run")
    numbers = [1, 2, 3, 4]
    inputs = step_inputs(run / "run", precommit, transcript, chain, kit.program, numbers,
                         RecordDataset(run / "train.jsonl"))
    prove_steps(kit, inputs, 4, secret=SECRET, precommit_sha256=precommit.sha256(),
                points_of=lambda number: points_of(chain, number), folder=out / "out",
                engine=StandIn(out / "prover", hangs=range(4, 9)), workers=2)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_end_in_the_middle_leaves_what_was_finished_and_no_process(work: Work, tmp_path: Path, how: int) -> None:
    program = tmp_path / "program.py"
    simulator = str(Path(__file__).parents[1] / "simulator")
    program.write_text(INTERRUPTED.format(simulator=simulator, run=str(work.run.folder), out=str(tmp_path)))
    (tmp_path / "scratch").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(program)], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
    )  # fmt: skip
    _until(lambda: work.engine.proofs >= 5 and len(work.parts()) + 2 * len(list(work.out.glob("*.json"))) >= 3)
    os.kill(process.pid, how)  # the parent alone, as a shell's `kill` does
    process.wait(timeout=30)
    _until(lambda: not _alive(process.pid))
    assert not list((tmp_path / "scratch").glob("pot-*"))
    kept = len(work.parts()) + 2 * len(list(work.out.glob("*.json")))
    assert kept == 3
    begun = work.engine.proofs
    work.engine.hangs = ()
    work.prove([number for number in (1, 2, 3, 4) if not schedule.step_path(work.out, number).exists()])
    assert work.verified() == [1, 2, 3, 4]
    assert work.engine.proofs - begun == 8 - kept


def _until(holds: Any) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def _alive(session: int) -> bool:
    """Whether a process of the session is left."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == session and words[0] != "Z":
            return True
    return False


# what the model was measured on: k, columns, vectors, CPU-seconds of one proof, GB (0: not measured)
MEASURED = [
    (9, 4, 6, 0.57, 0), (11, 1, 6, 0.68, 0), (11, 2, 6, 0.85, 0), (11, 3, 6, 0.96, 0), (11, 4, 6, 1.35, 0),
    (11, 7, 6, 1.63, 0), (11, 8, 6, 2.54, 0.16), (11, 12, 6, 3.45, 0.20), (11, 7, 8, 2.0, 0.105),
    (13, 2, 6, 2.5, 0.115), (13, 3, 6, 3.03, 0.139), (13, 4, 6, 4.6, 0.24), (13, 7, 6, 5.81, 0.303),
    (13, 8, 6, 9.49, 0.554), (14, 3, 6, 5.18, 0.239), (14, 4, 6, 8.62, 0.442), (14, 8, 8, 23.28, 1.17),
    (15, 2, 6, 8.1, 0.376), (15, 6, 6, 19.4, 1.02), (16, 2, 6, 17.48, 0.723),
]  # fmt: skip


@pytest.mark.parametrize(("logrows", "columns", "inputs", "seconds", "gigabytes"), MEASURED)
def test_the_model_fits_what_was_measured(
    logrows: int, columns: int, inputs: int, seconds: float, gigabytes: float
) -> None:
    found = proof_cost.part_cost(logrows, columns, inputs)
    assert found.seconds - proof_cost.STEP_SECONDS == pytest.approx(seconds, rel=0.15)
    if gigabytes:
        assert found.bytes / 1e9 == pytest.approx(gigabytes, rel=0.07)


def test_a_step_costs_what_its_parts_cost_and_holds_one_at_a_time() -> None:
    one, two = proof_cost.part_cost(13, 3, 6), proof_cost.part_cost(13, 3, 9)
    total = proof_cost.total_cost(13, 3, [6, 9])
    assert total.seconds == pytest.approx(one.seconds + two.seconds)
    assert total.bytes == two.bytes > one.bytes
    program = small_program()
    rows, found = cost.shape_cost(program, choose_shape(program, 9, 2))
    assert len(rows) == 2
    assert found.seconds > proof_cost.part_cost(9, 2, 1).seconds


def test_as_many_proofs_at_once_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "cores", lambda: 8)
    monkeypatch.setattr(cost, "available_bytes", lambda: 10 * GIB)
    assert cost.proofs_at_once(proof_cost.Cost(1, GIB // 10), 100) == 8
    assert cost.proofs_at_once(proof_cost.Cost(1, GIB // 10), 3) == 3
    assert cost.proofs_at_once(proof_cost.Cost(1, 2 * GIB), 100) == 4
    assert cost.proofs_at_once(proof_cost.Cost(1, 50 * GIB), 100) == 1
    assert cost.proofs_at_once(proof_cost.Cost(1, GIB), 0) == 1


def test_free_memory_is_the_system_s_or_the_container_s(tmp_path: Path) -> None:
    assert cost.available_bytes(tmp_path) == 2 * GIB
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4000 kB\n")
    assert cost.available_bytes(tmp_path) == 4_096_000
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5000\n")
    assert cost.available_bytes(tmp_path) == 4_096_000
    (group / "memory.max").write_text("9000\n")
    assert cost.available_bytes(tmp_path) == 4000
    (group / "memory.stat").write_text("anon 7\ninactive_file 1000\n")
    assert cost.available_bytes(tmp_path) == 5000
    (group / "memory.max").write_text("10\n")
    assert cost.available_bytes(tmp_path) == 0


def test_limits_grow_with_the_cost() -> None:
    small, large = cost.limits_of(proof_cost.Cost(1, GIB)), cost.limits_of(proof_cost.Cost(1000, 20 * GIB))
    assert 300 < small.wall_seconds < 900
    assert large.wall_seconds > 20_000
    assert small.memory_bytes == 16 * GIB
    assert large.memory_bytes > 20 * GIB
