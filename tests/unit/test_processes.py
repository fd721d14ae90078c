"""The processes of a run as the recorder sees them: one of them alone, errors that travel, tensors cut into rows."""

from __future__ import annotations

from typing import Any

import pytest

from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, MissingExtra, PotError, Refused, UsageError
from pot.recording.pytorch.rows import Rows, broadcasts_buffers, is_cut, sharding_of, unwrapped
from pot.recording.pytorch.sums import adds_in_any_order, average_in_order
from pot.recording.ranks import _error, _error_bytes, alone

torch = pytest.importorskip("torch")


def test_alone_everything_is_said_to_oneself() -> None:
    ranks = alone()
    assert (ranks.world, ranks.rank, ranks.first) == (1, 0, True)
    assert ranks.share(b"x") == b"x"
    assert ranks.gather(b"y") == [b"y"]
    assert ranks.decide(lambda: b"own", lambda heard: b"/".join([*heard, b"judged"])) == b"own/judged"


def test_alone_errors_come_as_they_are() -> None:
    ranks, error = alone(), Refused("no")

    def fail() -> bytes:
        raise error

    with pytest.raises(Refused) as found:
        ranks.decide(fail, lambda _: b"")
    assert found.value is error
    with pytest.raises(KeyError):
        ranks.decide(lambda: b"", lambda _: {}["absent"])  # type: ignore[typeddict-item]
    with pytest.raises(Refused, match="no"):
        ranks.later(error)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (UsageError("a"), UsageError, "process 2: a"),
        (LimitExceeded("b"), LimitExceeded, "process 2: b"),
        (Malformed("c \ud800"), Malformed, "process 2: c ?"),
        (Refused("d"), Refused, "process 2: d"),
        (EnvironmentFailure("e"), EnvironmentFailure, "process 2: e"),
        (MissingExtra("torch", "recording"), EnvironmentFailure, "process 2: recording needs"),
        (ValueError("f"), EnvironmentFailure, "process 2: ValueError: f"),
    ],
)
def test_an_error_crosses_processes(error: Exception, kind: type[PotError], sentence: str) -> None:
    found = _error(_error_bytes(error, 2))
    assert type(found) is kind
    assert str(found).startswith(sentence)
    assert not str(_error(_error_bytes(error, 0))).startswith("process")


def test_a_whole_tensor_is_cut_where_it_lies() -> None:
    value = torch.arange(10.0).reshape(5, 2)
    first, second = Rows(0, 2).own(value), Rows(1, 2).own(value)
    assert (first.tolist(), second.tolist()) == (value[:3].tolist(), value[3:].tolist())
    value[4, 1] = -1
    assert float(second[1, 1]) == -1  # the same memory
    assert Rows(1, 2).own(torch.tensor(3.0)) is None
    assert Rows(0, 2).own(torch.tensor(3.0)).item() == 3
    assert Rows(5, 6).own(value) is None
    assert Rows().own(value).shape == value.shape
    with pytest.raises(Refused, match="another shape or dtype"):
        Rows(0, 2).target(value, torch.zeros(4, 2), "w")


class DistributedDataParallel(torch.nn.Module):  # type: ignore[misc, name-defined]
    """What of PyTorch's is looked at."""

    def __init__(self, module: Any, broadcast_buffers: bool) -> None:
        super().__init__()
        self.module = module
        self.broadcast_buffers = broadcast_buffers
        self._comm_hooks: list[Any] = []


class FullyShardedDataParallel(DistributedDataParallel):
    """FSDP1 by its name."""


def test_what_is_wrapped_is_looked_into() -> None:
    model = torch.nn.Linear(2, 2)
    wrapped = DistributedDataParallel(model, True)
    assert unwrapped(wrapped) is model
    assert unwrapped(model) is model
    assert (broadcasts_buffers(wrapped), broadcasts_buffers(model)) == (True, False)
    assert not broadcasts_buffers(DistributedDataParallel(model, False))
    assert sharding_of(wrapped) == "replicated"
    assert not is_cut(model.weight)
    with pytest.raises(UsageError, match="use fully_shard"):
        unwrapped(FullyShardedDataParallel(model, True))
    assert [adds_in_any_order(wrapped, world) for world in (2, 3)] == [False, True]
    assert not adds_in_any_order(model, 3)
    wrapped._comm_hooks.append((average_in_order, None))
    assert not adds_in_any_order(wrapped, 3)
