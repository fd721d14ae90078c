"""An optimizer's option that the program moves by itself is said at the first state files that show it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pot import begin, record
from pot.data.commit import commit, write_committed
from pot.data.readers import RecordDataset
from pot.errors import Refused
from pot.recording.run import Run

COSINE = torch.optim.lr_scheduler.CosineAnnealingLR
NEVER = "only a scheduler given to record() as scheduler= may move an option, a LambdaLR for instance"
END = f"from here this run can be neither resumed nor replayed; {NEVER}"


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setattr("pot.recording.begin.replay_obstacles", list)
    Path("train.jsonl").write_bytes(b"".join(b'{"id":%d}\n' % n for n in range(22)))
    write_committed(commit([Path("train.jsonl")], "json/1", "training"), Path("train.json"))


class Trained:
    """A training of 12 steps with state files after 4 and 8; `moves` is called before each step is recorded."""

    def __init__(self, kind: Any = torch.optim.SGD, **options: Any) -> None:
        torch.manual_seed(1)
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = kind(self.model.parameters(), lr=0.1, **options)
        self.scheduler: Any = None

    def run(self, moves: Any, *, last: int = 12, launched: bool = False, strict: bool = False, **parts: Any) -> Run:
        begun = begin(
            "run", commitments=["train.json"], inputs=["train.jsonl"], batch_size=2, steps=12, checkpoint_every=2,
            state_every=4,
        )  # fmt: skip
        begun.launched, begun.strict = launched, strict
        data = RecordDataset("train.jsonl")
        given = {"scheduler": self.scheduler, **parts}
        with record(begun, model=self.model, optimizer=self.optimizer, data=data, **given) as run:
            for items in run.batches(data):
                loss = self.model(torch.tensor([[float(item["id"])] for item in items])).square().mean() / 1000
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                moves(self, run)
                run.step(loss=loss)
                if run.done == last:
                    break
        return run


def _sets(trained: Trained, run: Run) -> None:
    for group in trained.optimizer.param_groups:
        group["lr"] = 0.1 * (1 - (run.done + 1) / 16)


def _steps(trained: Trained, run: Run) -> None:
    trained.scheduler.step()


def _nothing(trained: Trained, run: Run) -> None:
    return


def _about_options(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = [line.removeprefix("pot: ") for line in capsys.readouterr().err.splitlines()]
    return [line for line in lines if "optimizer" in line]


def test_a_rate_that_the_loop_sets_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert Trained().run(_sets).done == 12
    assert _about_options(capsys) == [f"step 4: the optimizer's lr went from 0.1 to 0.07500000000000001: {END}"]


def test_a_scheduler_that_is_not_given_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    trained = Trained()
    trained.scheduler = torch.optim.lr_scheduler.StepLR(trained.optimizer, 5, gamma=0.5)
    trained.run(_steps, scheduler=None)
    assert _about_options(capsys) == [f"step 8: the optimizer's lr went from 0.1 to 0.05: {END}"]


def test_strict_refuses_at_that_moment() -> None:
    with pytest.raises(Refused) as found:
        Trained().run(_sets, strict=True)
    assert (
        str(found.value)
        == f"record(strict=True): step 4: the optimizer's lr went from 0.1 to 0.07500000000000001: {END}"
    )


def test_the_same_rule_is_told_where_the_run_cannot_go_on() -> None:
    Trained().run(_sets, last=5)
    with pytest.raises(Refused, match=r"optimizer groups are not the program's own: \[0\]\.lr\.real") as found:
        Trained().run(_sets)
    assert str(found.value).endswith(NEVER)


def test_what_is_in_order_is_not_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    """No false alarm: a constant rate, a given scheduler, one that moves momentum too, and one of two parts."""
    makers: list[Any] = [
        lambda _: None,
        lambda optimizer: COSINE(optimizer, 12),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=13),
        lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
            optimizer, [torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=3), COSINE(optimizer, 9)], [3]
        ),
    ]
    for number, make in enumerate(makers):
        for kind, options in ((torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {})):
            trained = Trained(kind, **options)
            trained.scheduler = make(trained.optimizer)
            trained.run(_steps if trained.scheduler is not None else _nothing, strict=True, last=9)
            assert _about_options(capsys) == [], number
            Path("run").rename(f"run-{number}-{kind.__name__}")


def test_a_rate_set_beside_a_given_scheduler_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    trained = Trained()
    trained.scheduler = torch.optim.lr_scheduler.StepLR(trained.optimizer, 100)
    trained.run(_sets)
    assert _about_options(capsys) == [
        f"step 4: the optimizer's lr is 0.07500000000000001, its scheduler set 0.1: {END}"
    ]


def test_other_options_and_groups_are_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    def decays(trained: Trained, run: Run) -> None:
        trained.optimizer.param_groups[0]["weight_decay"] = 0.5

    Trained().run(decays)
    assert _about_options(capsys)[0].startswith("step 4: the optimizer's weight_decay went from 0 to 0.5: ")
    Path("run").rename("run-decay")

    def parts(trained: Trained, run: Run) -> None:
        if len(trained.optimizer.param_groups) == 1:
            bias = trained.optimizer.param_groups[0]["params"].pop()
            trained.optimizer.add_param_group({"params": [bias]})

    Trained().run(parts)
    assert _about_options(capsys)[0].startswith("step 4: the optimizer has 2 groups of parameters in place of 1: ")


def test_a_launched_script_turns_its_own_loop_and_hears_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Trained().run(_sets, launched=True, strict=True)
    assert _about_options(capsys) == []


def test_the_last_state_is_nobodys_start(capsys: pytest.CaptureFixture[str]) -> None:
    def late(trained: Trained, run: Run) -> None:
        if run.done >= 8:
            _sets(trained, run)

    Trained().run(late, strict=True)
    assert _about_options(capsys) == []
