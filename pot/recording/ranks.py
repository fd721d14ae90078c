"""The processes of a distributed run, as the recorder sees them: one decides, all hear of it, none waits for ever.

The recorder has a gloo group of its own beside the program's, so its words are never taken for gradients, and it says
bytes, never pickles. An error in one process ends all with the same sentence: `decide` carries it in place of the
answer. Every process must come to the same calls in the same order.

Shows / does not show: nothing; a process can say anything about what it holds, replays find out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pot import errors
from pot.canonical import canonical_bytes, parse_canonical
from pot.errors import EnvironmentFailure, PotError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Ranks", "alone", "joined", "world_size"]

_PATIENCE: Final = 3600.0  # seconds that one process may train, write or wait longer than another
_MAX_MESSAGE: Final = 1 << 30
_SAID: Final = (
    errors.UsageError, errors.Malformed, errors.LimitExceeded, errors.Refused, errors.EnvironmentFailure,
)  # fmt: skip


class Ranks:
    """The processes of this run, `world` of them; this one is `rank`. Rank 0 holds transcript and lock."""

    def __init__(self, world: int, rank: int, group: Any = None) -> None:
        self.world = world
        self.rank = rank
        self._group = group
        self._held: PotError | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the transcript."""
        return self.rank == 0

    def share(self, data: bytes) -> bytes:
        """What rank 0 gives, in every process. Raises `EnvironmentFailure` where a process has gone."""
        if self.world == 1:
            return data
        import torch
        from torch import distributed

        with _heard():
            size = torch.tensor([len(data)], dtype=torch.int64)
            distributed.broadcast(size, src=0, group=self._group)
            body = _tensor(data, int(size)) if self.first else torch.zeros(int(size), dtype=torch.uint8)
            if int(size):
                distributed.broadcast(body, src=0, group=self._group)
        return bytes(body.numpy())

    def gather(self, data: bytes) -> list[bytes]:
        """What each process gives, in their order, on rank 0; nothing elsewhere. Raises `EnvironmentFailure`."""
        if self.world == 1:
            return [data]
        import torch
        from torch import distributed

        with _heard():
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
            distributed.all_gather(sizes, torch.tensor([len(data)], dtype=torch.int64), group=self._group)
            width = max(1, *(int(size) for size in sizes))
            if width * self.world > _MAX_MESSAGE:
                raise EnvironmentFailure(f"record: {self.world} processes say {width} bytes each, too much to gather")
            into = [torch.zeros(width, dtype=torch.uint8) for _ in range(self.world)] if self.first else None
            distributed.gather(_tensor(data, width), into, dst=0, group=self._group)
        return [bytes(found.numpy())[: int(size)] for found, size in zip(into or (), sizes, strict=False)]

    def decide(self, said: Callable[[], bytes], judge: Callable[[list[bytes]], bytes]) -> bytes:
        """Each process says something, rank 0 judges what all said, and every process gets the answer.

        An error of any of them is raised in all, as `PotError`; the lowest rank's, if several fail.
        """
        own: Exception | None = None
        message = b""
        try:
            if self._held is not None:
                raise self._held
            message = b"+" + said()
        except Exception as error:
            own, message = error, _error_bytes(error, self.rank)
        if self.world == 1:
            if own is not None:
                raise own
            return judge([message[1:]])
        answer = b""
        try:
            heard = self.gather(message)
            if self.first:
                failed = next((found for found in heard if not found.startswith(b"+")), None)
                answer = failed if failed is not None else b"+" + judge([found[1:] for found in heard])
        except Exception as error:
            if not self.first:
                raise
            own, answer = own or error, _error_bytes(error, 0)
        answer = self.share(answer)
        if answer.startswith(b"+"):
            return answer[1:]
        if own is not None:
            raise own
        raise _error(answer)

    def agree(self, job: Callable[[], None]) -> None:
        """Do something everywhere; where it fails in one process, its error is raised in all."""

        def said() -> bytes:
            job()
            return b""

        self.decide(said, lambda _: b"")

    def later(self, error: PotError) -> None:
        """Raise an error, in a distributed run at the next `decide`: there the other processes hear of it too."""
        if self.world == 1:
            raise error
        self._held = self._held or error


def alone() -> Ranks:
    """A run of one process."""
    return Ranks(1, 0)


def world_size() -> int:
    """How many processes the program has joined by `torch.distributed.init_process_group`; 1 if it has not."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 1
    return int(torch.distributed.get_world_size())


def joined(patience: float = 0.0) -> Ranks:
    """The processes that the program has joined, with a group for the recorder. Every process must call it.

    `patience`: seconds that rank 0 may keep the others waiting for an answer. Raises `EnvironmentFailure`.
    """
    world = world_size()
    if world == 1:
        return alone()
    from torch import distributed

    if not distributed.is_gloo_available():
        raise EnvironmentFailure("record: this PyTorch has no gloo, by which the recorder's processes talk")
    with _heard():
        group = distributed.new_group(backend="gloo", timeout=timedelta(seconds=_PATIENCE + patience))
    return Ranks(world, int(distributed.get_rank()), group)


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise EnvironmentFailure(
            f"record: another process of this run has ended or does not answer ({reason}); see its own message, then"
            " start the same command again"
        ) from None


def _tensor(data: bytes, width: int) -> Any:
    import torch

    return torch.frombuffer(bytearray(data.ljust(width, b"\0")), dtype=torch.uint8) if width else torch.zeros(0).byte()


def _error_bytes(error: Exception, rank: int) -> bytes:
    kind = next((kind for kind in reversed(_SAID) if isinstance(error, kind)), None)
    sentence = str(error) if kind is not None else f"{type(error).__name__}: {error}"
    where = f"process {rank}: " if rank else ""
    plain = (where + sentence).encode("utf-8", "replace").decode("utf-8")
    return canonical_bytes({"kind": (kind or EnvironmentFailure).__name__, "sentence": plain[:4096]})


def _error(data: bytes) -> PotError:
    found = parse_canonical(data, what="another process's error")
    kind = next((kind for kind in _SAID if kind.__name__ == found["kind"]), UsageError)
    return kind(found["sentence"])
