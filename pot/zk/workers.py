"""Processes for proofs: results as they come, and an end that takes everything with it.

Unlike `pot.distribute.mapped`, jobs are made as they are needed (they hold a model's state each), results come in any
order, and an interruption does not wait for the jobs in progress: each worker kills the prover that it started before
it ends. A worker also ends when its parent is gone, however that was ended. Temporary files of the workers lie in one
folder, which goes with them: what a prover is given says as much as the model's weights.

Shows / does not show: nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Final, TypeVar

from pot.errors import EnvironmentFailure

__all__ = ["in_processes"]

_GRACE_SECONDS: Final = 10.0

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_processes(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Generator[Result]:
    """The results of `function` over `jobs`, in the order in which they are done; at most one job waits.

    Function, jobs and results must pickle. What the function raises ends the rest. Raises `EnvironmentFailure` where a
    worker died.
    """
    with tempfile.TemporaryDirectory(prefix="pot-work-", ignore_cleanup_errors=True) as scratch:
        yield from _in_processes(function, jobs, workers, scratch)


def _in_processes(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, scratch: str
) -> Generator[Result]:
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(scratch,))
    try:
        waiting: set[Future[Result]] = set()
        for job in jobs:
            waiting.add(pool.submit(partial(_run, function), job))
            if len(waiting) > workers:
                done, waiting = wait_for(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait_for(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool:
        raise EnvironmentFailure("a worker process died, perhaps for lack of memory; try fewer workers") from None
    except BaseException:  # also what ends a generator
        for child in set(active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run(function: Callable[[Job], Result], job: Job) -> Result:
    try:
        return function(job)
    except SystemExit:  # what the job had started is gone by now, and nothing more is begun here
        parent = parent_process()
        if parent is None or not parent.is_alive():
            shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
        os._exit(1)


def _begin(scratch: str) -> None:
    """In a worker: interrupts are the parent's matter; a request to end, or the parent's end, ends the job."""
    tempfile.tempdir = scratch
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second request would interrupt what the first one cleans up
    raise SystemExit


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)
