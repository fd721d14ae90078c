"""Replays side by side: on this machine, or spread over a Ray cluster.

On this machine threads only wait for the programs that they start. On a cluster each node makes its own `Replayer` from
paths, once: run directory, data and code must lie at the same paths on every node, and a node's walls and environment
are its own.

Shows / does not show: see `pot.audit.replaying.replay`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from pot.audit.replaying.replay import Replay, Replayer
from pot.audit.replaying.sandbox import Limits, end_running
from pot.distribute import mapped
from pot.errors import EnvironmentFailure
from pot.recording.checking.chain import Segment
from pot.recording.precommit import Precommit
from pot.recording.transcript import CheckpointEvent

__all__ = ["ReplayJob", "RunPlace", "replays"]

_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True)
class RunPlace:
    """What a `Replayer` is made of; paths absolute, and the pre-commitment as its canonical bytes."""

    run_dir: Path
    precommit: bytes
    nonce: str
    data: tuple[Path, ...]
    code: Path
    limits: Limits
    hidden: tuple[Path, ...]

    def replayer(self) -> Replayer:
        """A new one: data and code are matched by SHA-256. Raises `UsageError`, `EnvironmentFailure`."""
        return Replayer(
            self.run_dir, Precommit.from_bytes(self.precommit, what="precommit.json"), self.nonce, self.data, self.code,
            limits=self.limits, hidden=self.hidden,
        )  # fmt: skip


@dataclass(frozen=True)
class ReplayJob:
    """One segment with the inner steps whose digests are wanted, or (no segment) the initial state."""

    place: RunPlace
    segment: Segment | None
    start: CheckpointEvent | None
    roots: tuple[int, ...] = ()

    @property
    def index(self) -> int:
        """The segment's number; 0 for the initial state."""
        return self.segment.index if self.segment is not None else 0

    def run(self, replayer: Replayer) -> Replay:
        """The replay; REFUSED, with the reason, where this machine fails at it: the others' outcomes stand."""
        try:
            if self.segment is None:
                return replayer.initial(self.start)
            return replayer.segment(self.segment, roots=self.roots)
        except MemoryError:
            return Replay("REFUSED", "this machine has not enough memory for it")
        except EnvironmentFailure as error:
            return Replay("REFUSED", str(error))
        except OSError as error:
            return Replay("REFUSED", error.strerror or str(error))


def replays(
    jobs: Sequence[ReplayJob], replayer: Replayer, *, workers: int = 1, ray: str | None = None
) -> Generator[tuple[ReplayJob, Replay]]:
    """Every job and what it gave, as they are done; begun in the order of `jobs`. Raises as `mapped` does.

    Whoever stops early closes it: what is running is ended then.
    """
    if ray is not None:
        with mapped(_on_a_node, jobs, ray=ray) as results:
            yield from zip(jobs, results, strict=True)
        return
    with ThreadPoolExecutor(max(1, workers)) as pool:
        pending = {pool.submit(job.run, replayer): job for job in jobs}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        except BaseException:  # whoever asked is gone: nobody waits for hours of a program
            for future in pending:
                future.cancel()
            while wait(pending, timeout=_LOOK_SECONDS).not_done:  # a job may start another program after the first
                end_running()
            raise


def _on_a_node(job: ReplayJob) -> Replay:
    return job.run(_replayer(job.place))


@lru_cache(maxsize=1)
def _replayer(place: RunPlace) -> Replayer:
    return place.replayer()
