"""Float training that can be proven: slack is measured, forgeries lie outside it, states are kept and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact_run import SECRET, ExactRun, digest_points

from pot import begin, record
from pot.canonical import sha256_hex
from pot.errors import Malformed, Refused, UsageError
from pot.recording.checking.chain import ChainResult
from pot.recording.state import write_components
from pot.zk.float_training import FloatTrainer
from pot.zk.runs.rewind import points_of, step_inputs
from pot.zk.runs.slack import measure_slack, with_slack
from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.digits import mlp_program
from pot.zk.semantics.exact import advance, run
from pot.zk.semantics.fixed import dequantise_array, quantise_array
from pot.zk.semantics.program import Program

torch = pytest.importorskip("torch")

PROGRAM = mlp_program(inputs=4, hidden=4, outputs=2, batch=2, feature_bits=4, width=5, rate_shift=3, limb_bits=14)


class Training:
    """A small network, its float step, and records drawn at random."""

    def __init__(self, seed: int = 0, momentum: float = 0.0) -> None:
        torch.manual_seed(seed)
        self.module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.125, momentum=momentum)

    def step(self, records: Any) -> Any:
        return self.step_on(batch_arrays(PROGRAM, records))

    def step_on(self, batch: Any) -> Any:
        self.optimizer.zero_grad()
        out = self.module(torch.from_numpy(batch["image"]).float() / 16)
        loss = ((out - torch.from_numpy(batch["label"])) ** 2).sum() / 4
        loss.backward()
        self.optimizer.step()
        return loss

    def trainer(self, program: Program, **change: Any) -> FloatTrainer:
        return FloatTrainer(
            program, self.module, self.optimizer, **{"secret": SECRET, "make_points": digest_points, **change}
        )


def records(seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"image": rng.integers(0, 17, (2, 2)).tolist(), "label": int(rng.integers(0, 2))} for _ in range(2)]


def trial(steps: int = 24) -> FloatTrainer:
    training = Training()
    trainer = training.trainer(PROGRAM, check=False)
    for number in range(1, steps + 1):
        training.step(records(number))
        trainer.step(number, batch_arrays(PROGRAM, records(number)))
    return trainer


@pytest.fixture(scope="module")
def loose() -> Program:
    return with_slack(PROGRAM, measure_slack(PROGRAM, trial().open_steps).chosen())


def test_the_measured_slack_holds_the_honest_steps_and_no_forgery() -> None:
    steps = trial().open_steps
    found = measure_slack(PROGRAM, steps)
    program = with_slack(PROGRAM, found.chosen())
    assert all(item.slack == found.bits()[str(program.nodes[item.state].name)] > 0 for item in program.next)
    for item in steps:
        run(program, item.before, item.batch, after=item.after)
    assert found.ratio() > 1
    assert f"lies {found.ratio():.3g} times as far" in str(found)
    assert "0.weight: " in str(found)
    for at, item in enumerate(steps):  # the step of another batch, and no step, in place of the step
        for after in (steps[at - 1].after, item.before):
            with pytest.raises(Refused, match="away from the exact step's"):
                run(program, item.before, item.batch, after=after)


def test_a_slack_is_never_smaller_than_what_was_measured() -> None:
    found = measure_slack(PROGRAM, trial(6).open_steps)
    for name, distance in found.honest.items():
        assert (1 << found.bits(0)[name]) - 1 >= distance > 0
        assert found.bits(3)[name] == found.bits(0)[name] + 3
    assert found.ratio(0) > found.ratio(4)


def test_a_slack_within_which_a_record_could_be_exchanged_is_refused() -> None:
    found = measure_slack(PROGRAM, trial(6).open_steps)
    assert found.chosen(1) == found.bits(1)
    wide = next(margin for margin in range(40) if found.ratio(margin) <= 1)
    with pytest.raises(Refused, match="the nearest forgery lies only"):
        found.chosen(wide)


def test_what_cannot_be_measured_or_is_too_far_is_refused() -> None:
    steps = trial(2).open_steps
    with pytest.raises(UsageError, match="two or more"):
        measure_slack(PROGRAM, steps[:1])
    with pytest.raises(Refused, match="41 bits"):
        with_slack(PROGRAM, {"0.bias": 41})


def test_a_step_beyond_the_slack_is_refused_as_it_is_taken(loose: Program) -> None:
    training = Training()
    trainer = training.trainer(loose)
    training.step(records(1))
    with torch.no_grad():
        training.module[2].bias[0] += 0.01
    with pytest.raises(Refused, match=r"2\.bias: the recorded next value"):
        trainer.step(1, batch_arrays(PROGRAM, records(1)))
    with pytest.raises(UsageError, match="trained were none"):
        trainer.points_for_segment([1])


def test_grid_points_are_floats_so_putting_them_on_the_grid_changes_them_once() -> None:
    rng = np.random.default_rng(1)
    for bits in (20, 28, 40):
        values = (rng.normal(0, 1, 4000) * 2.0 ** rng.integers(-40, 5, 4000)).astype(np.float32)
        grid = quantise_array(values, bits)
        assert (quantise_array(dequantise_array(grid, bits), bits) == grid).all()
    with pytest.raises(Malformed, match="too large for a grid of 60"):
        quantise_array(np.array([4.0], np.float32), 60)


class FloatRun(ExactRun):
    """`ExactRun`'s folder, trained in floats, its states kept in `states`."""

    def go(self, program: Program, stop: int | None = None) -> None:
        begun = begin(
            self.run_dir, commitments=[self.folder / "train.json"], inputs=[self.folder / "train.jsonl"],
            nonce="0b" * 32,
            config={"steps": 8, "checkpoint_every": 3, "batch_size": 2}, secret_sha256=sha256_hex(SECRET),
        )  # fmt: skip
        training, data = Training(), self.data
        trainer = training.trainer(program, keep_in=self.folder / "states")
        with record(begun, state=trainer, data=data) as run:
            for batch in run.batches(data):
                loss = training.step(batch)
                trainer.step(run.done + 1, batch_arrays(program, batch))
                run.step(loss=loss)
                if run.done == stop:
                    break


def rewound(run: FloatRun, program: Program, chain: ChainResult, kept: Path | None) -> list[Any]:
    return list(
        step_inputs(run.run_dir, run.precommit, run.transcript, chain, program, range(1, 9), run.data, kept=kept)
    )


def test_a_float_run_has_points_of_states_that_are_kept(loose: Program, tmp_path: Path) -> None:
    run = FloatRun(tmp_path / "program")
    run.go(loose)
    chain = run.chain()
    assert chain.problems == ()
    kept = run.folder / "states"
    for item in rewound(run, loose, chain, kept):
        assert item.after is not None
        states = [(item.number - 1, item.before), (item.number, item.after)]
        before, after, batch = digest_points(SECRET, states, [(item.number, item.batch)])
        points = points_of(chain, item.number)
        assert (points.before, points.after, points.batch) == (before, after, batch)
    with pytest.raises(UsageError, match="states were kept"):
        rewound(run, loose, chain, None)
    with pytest.raises(Refused, match="away from the exact step's"):
        rewound(run, PROGRAM, chain, kept)
    (kept / "state-000004.safetensors").unlink()
    with pytest.raises(UsageError, match="no such file"):
        rewound(run, loose, chain, kept)


def test_a_stopped_float_run_goes_on_from_what_was_committed(loose: Program, tmp_path: Path) -> None:
    run = FloatRun(tmp_path / "program")
    run.go(loose, stop=5)
    run.go(loose)
    assert run.chain().problems == ()
    once = Training()
    trainer = once.trainer(loose)
    found = rewound(run, loose, run.chain(), run.folder / "states")
    for item in found:
        once.step_on(item.batch)
        trainer.step(item.number, item.batch)
        assert all((trainer.state[name] == array).all() for name, array in item.after.items())
    points = trainer.points_for_segment([item.number for item in found])
    assert points == [points_of(run.chain(), item.number) for item in found]


def momentum_program() -> Program:
    """Half the mean square of w x, momentum 1/2, rate 1/4."""
    b = Builder(limb_bits=14)
    w = b.state("weight", [1, 2], bits=20, width=22)
    m = b.state("weight.momentum_buffer", [1, 2], bits=20, width=24)
    x = b.batch("x", [2, 2], kind="signed", bits=3, width=5)
    out = b.round(b.matmul(x, b.permute(w, [1, 0])), 9, limbs=1)
    gradient = b.scaled(b.matmul(b.permute(out, [1, 0]), x), 1)
    moved = b.round(b.add(b.shift(b.scaled(m, 1), 0), gradient), 20, limbs=2)
    b.set_next(m, moved)
    b.set_next(w, b.sub(w, b.round(b.scaled(moved, 2), 20, limbs=2)))
    return b.program(label="momentum", batch=2, max_steps=50)


def momentum_training(seed: int = 3) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    module = torch.nn.Linear(2, 1, bias=False)
    return module, torch.optim.SGD(module.parameters(), lr=0.25, momentum=0.5)


def learn(module: Any, optimizer: Any, x: Any) -> None:
    """One float step of half the mean square."""
    optimizer.zero_grad()
    (module(torch.from_numpy(x).float() / 8) ** 2).mean().mul(0.5).backward()
    optimizer.step()


def test_what_the_optimizer_remembers_is_read_from_it() -> None:
    program, (module, optimizer) = momentum_program(), momentum_training()
    trainer = FloatTrainer(program, module, optimizer, secret=SECRET, check=False)
    assert trainer.state["weight.momentum_buffer"].tolist() == [[0, 0]]
    rng = np.random.default_rng(0)
    for number in range(1, 13):
        x = rng.integers(-16, 17, (2, 2))
        learn(module, optimizer, x)
        trainer.step(number, {"x": x})
    assert np.abs(trainer.state["weight.momentum_buffer"]).max() > 0
    found = measure_slack(program, trainer.open_steps)
    assert 0 < found.honest["weight"] < 1 << 12  # 2^-8: what rounding the output to 9 bits costs
    assert found.ratio() > 1


def test_the_module_stands_where_the_points_are() -> None:
    """What is not on the grid is put there after each step, weights and momentum; a parent's weights are left alone."""
    program, (module, optimizer) = momentum_program(), momentum_training()
    start = module.weight.detach().clone()
    trainer = FloatTrainer(program, module, optimizer, secret=SECRET, check=False)
    assert torch.equal(module.weight, start)
    assert (np.rint(start.numpy() * 2.0**20) == trainer.state["weight"]).all()
    for number in (1, 2, 3):
        x = np.array([[number, -7], [3, 16]])
        learn(module, optimizer, x)
        assert (module.weight.detach().numpy() * 2.0**20 % 1 != 0).any()
        trainer.step(number, {"x": x})
        assert (module.weight.detach().numpy() * 2.0**20 == trainer.state["weight"]).all()
        buffer = optimizer.state[module.weight]["momentum_buffer"].numpy()
        assert (buffer * 2.0**20 == trainer.state["weight.momentum_buffer"]).all()


def test_what_neither_module_nor_optimizer_have_follows_the_program_also_after_a_load(tmp_path: Path) -> None:
    b = Builder(limb_bits=14)
    w = b.state("weight", [1, 2], bits=20, width=22)
    power = b.state("optimizer.power", [1], bits=10, width=11)
    b.batch("x", [2, 2], kind="signed", bits=3, width=5)
    b.set_next(w, w)
    b.set_next(power, b.round(b.mul(power, b.constant([922], [1], bits=10)), 10, limbs=1))
    program, start = b.program(label="power", batch=2, max_steps=50), {"optimizer.power": np.array([1024])}

    def made() -> tuple[Any, Any, FloatTrainer]:
        torch.manual_seed(1)
        module = torch.nn.Linear(2, 1, bias=False)
        optimizer = torch.optim.Adam(module.parameters())
        return module, optimizer, FloatTrainer(program, module, optimizer, secret=SECRET, others=start, check=False)

    module, optimizer, trainer = made()
    power_now: Any = start
    (tmp_path / "0").mkdir()
    (tmp_path / "5").mkdir()
    write_components(tmp_path / "0", trainer.capture())
    for number in range(1, 6):
        x = np.array([[number, -7], [3, 16]])
        learn(module, optimizer, x)
        trainer.step(number, {"x": x})
        power_now = advance(program, power_now)
        assert trainer.state["optimizer.power"].tolist() == power_now["optimizer.power"].tolist()
    write_components(tmp_path / "5", trainer.capture())
    for folder, wanted in (("5", trainer.state), ("0", {**trainer.open_steps[0].before})):
        again = made()[2]
        again.load(tmp_path / folder)
        assert {name: array.tolist() for name, array in again.state.items()} == {
            name: array.tolist() for name, array in wanted.items()
        }
    with pytest.raises(UsageError, match=r"start values are needed of optimizer\.power"):
        FloatTrainer(program, module, optimizer, secret=SECRET)
    with pytest.raises(UsageError, match="an optimizer such as Adam"):
        FloatTrainer(program, module, torch.optim.SGD(module.parameters(), lr=1), secret=SECRET, others=start)


def test_programs_that_are_not_of_this_training_are_refused() -> None:
    module, optimizer = momentum_training()
    with pytest.raises(UsageError, match="start values are needed of no tensor"):
        FloatTrainer(momentum_program(), module, optimizer, secret=SECRET, others={"power": np.array([1])})
    with pytest.raises(UsageError, match=r"weight: is torch\.float64"):
        FloatTrainer(momentum_program(), module.double(), optimizer, secret=SECRET)
    training = Training()
    with pytest.raises(UsageError, match="trains a parameter that the program has not"):
        FloatTrainer(momentum_program(), training.module, training.optimizer, secret=SECRET)
    frozen = torch.optim.SGD(training.module[2].parameters(), lr=0.1)
    with pytest.raises(UsageError, match=r"0\.weight: the optimizer does not train it"):
        FloatTrainer(PROGRAM, training.module, frozen, secret=SECRET)
    with pytest.raises(UsageError, match="31 bytes"):
        training.trainer(PROGRAM, secret=SECRET[:31])
