"""A02, A18, A20: another learning rate (tiny, or negative) hidden in the optimizer state that a replay starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pot.errors import Refused

torch = pytest.importorskip("torch")


def _trained(rate: float, steps: int) -> tuple[object, object]:
    torch.manual_seed(1)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("hidden", [1e-9, -0.1, 0.101])
def test_a_checkpoint_with_another_rate_is_not_taken_over(tmp_path: Path, hidden: float) -> None:
    from pot.recording.pytorch.state import TorchState
    from pot.recording.state import write_components

    donor, donors = _trained(0.1, 2)
    donors.param_groups[0]["lr"] = hidden
    write_components(tmp_path, TorchState(donor, donors).capture())
    model, optimizer = _trained(0.1, 0)
    with pytest.raises(Refused, match=r"optimizer groups are not the program's own.*lr"):
        TorchState(model, optimizer).load(tmp_path)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_the_same_rate_is_accepted_and_moments_come_back(tmp_path: Path) -> None:
    from pot.recording.pytorch.state import TorchState
    from pot.recording.state import write_components

    write_components(tmp_path, TorchState(*_trained(0.1, 2)).capture())
    model, optimizer = _trained(0.1, 0)
    TorchState(model, optimizer).load(tmp_path)
    wanted = _trained(0.1, 2)[1]
    for mine, theirs in zip(optimizer.param_groups[0]["params"], wanted.param_groups[0]["params"], strict=True):
        assert torch.equal(optimizer.state[mine]["momentum_buffer"], wanted.state[theirs]["momentum_buffer"])


def test_a_schedule_is_stepped_not_loaded(tmp_path: Path) -> None:
    from pot.recording.pytorch.state import TorchState
    from pot.recording.state import write_components

    def build(factor: float, steps: int) -> TorchState:
        model, optimizer = _trained(0.1, 0)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, factor)
        for _ in range(steps):
            optimizer.step()
            schedule.step()
        return TorchState(model, optimizer, schedule)

    saved = build(0.9, 7)
    write_components(tmp_path, saved.capture())
    again = build(0.9, 0)
    again.load(tmp_path)
    assert again.optimizer.param_groups[0]["lr"] == saved.optimizer.param_groups[0]["lr"] != 0.1
    with pytest.raises(Refused, match=r"scheduler are not the program's own"):
        build(0.8, 0).load(tmp_path)
