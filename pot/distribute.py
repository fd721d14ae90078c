"""Distribution: one function over many jobs, in this process, in a process pool, or on a Ray cluster.

Results come in the order of the jobs and do not depend on where they were made. A process pool starts in a tenth of a
second and serves one machine; Ray takes seconds to start and serves a cluster. An error in one job stops the rest.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Any, Final, TypeVar

from pot.errors import EnvironmentFailure, MissingExtra, PotError, UsageError

__all__ = ["MAX_WORKERS", "check_cluster", "mapped"]

MAX_WORKERS: Final = 256
_CONNECT_SECONDS: Final = 10.0
_RETRIES: Final = 5  # of a Ray task whose worker or node died; a job that kills its worker must end some time

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def mapped(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int = 1, ray: str | None = None
) -> Iterator[Iterator[Result]]:
    """The results of `function` (importable, with arguments and results that pickle) over `jobs`, in their order.

    `workers`: processes. `ray`: a cluster's address ("auto", "HOST:PORT" or "ray://HOST:PORT") instead of them. What
    the function raises of `pot.errors` is raised here. Raises `UsageError`, `EnvironmentFailure` (a worker died and
    could not be replaced, no cluster), `MissingExtra`.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise UsageError(f"{workers} workers were asked for, 1 to {MAX_WORKERS} are possible")
    if ray is not None:
        with _cluster(ray) as module:
            yield _on_cluster(module, function, jobs)
    elif workers == 1 or len(jobs) <= 1:
        yield map(function, jobs)
    else:
        with _pool(min(workers, len(jobs))) as pool:
            yield pool.map(function, jobs)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # spawn: a fork would copy the caller's threads and locks
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_follow_the_parent)
    try:
        yield pool
    except KeyboardInterrupt:  # nobody waits for what the workers still do
        for worker in set(active_children()) - others:
            worker.terminate()
        raise
    except BrokenProcessPool:
        raise EnvironmentFailure("a worker process died, perhaps for lack of memory; try fewer workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_the_parent() -> None:
    """In a worker: leave interrupts to the parent, and end when it is gone, however it was ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    check_cluster(address)
    import ray

    if ray.is_initialized():
        yield ray  # the caller's own session, which it will end
        return
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EnvironmentFailure(f"Ray cluster {address[:128]}: cannot be reached: {reason}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def check_cluster(address: str) -> None:
    """Refuse an address that nobody listens at, before long work and where Ray would go on trying for minutes.

    Raises `EnvironmentFailure`, and `MissingExtra` where Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "spreading work over a cluster (--ray)") from None
    if ray.is_initialized():
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:  # "auto", "local": not an address of the network
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EnvironmentFailure(f"Ray cluster {address[:128]}: cannot be reached: {reason}") from None


def _on_cluster(ray: Any, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
    """Core tasks, a bounded number at a time; one whose worker or node died is started again elsewhere."""
    task = ray.remote(max_retries=_RETRIES)(function)
    window = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
    waiting: deque[Any] = deque()
    ahead = iter(jobs)
    while True:
        while len(waiting) < window and (job := next(ahead, None)) is not None:
            waiting.append(task.remote(job))
        if not waiting:
            return
        try:
            yield ray.get(waiting.popleft())
        except ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, PotError) else EnvironmentFailure(_failed(error)) from None
        except ray.exceptions.RayError as error:
            raise EnvironmentFailure(_failed(error)) from None


def _failed(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"a task on the Ray cluster failed and was given up: {lines[-1][:200]}; look at the cluster, then try again"
