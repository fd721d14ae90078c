"""Starting the processes of a distributed run on this machine: `python -m pot.recording.launch COUNT SCRIPT ARGS...`.

For replays: each process finds the variables that `torch.distributed.init_process_group` reads (`env://`), and all talk
over the loopback interface, the only one in a sandbox. Where one fails the others are ended, and its exit code is the
launcher's. To train, use `torchrun` or any launcher of yours.

Shows / does not show: nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from pot.errors import EnvironmentFailure, UsageError

__all__ = ["launch", "main", "most_processes"]

_HOST: Final = "127.0.0.1"
_POLL_SECONDS: Final = 0.02
_GRACE_SECONDS: Final = 2.0  # in which the others may say their own last words
_MAX_COUNT: Final = 1 << 10  # processes that one machine is asked to start
_MOST_PER_CORE: Final = 16


def most_processes() -> int:
    """How many processes this machine starts side by side: whoever recorded a run says how many it had."""
    return min(_MAX_COUNT, _MOST_PER_CORE * (os.cpu_count() or 1))


def launch(count: int, command: Sequence[str]) -> int:
    """Run `command` `count` times side by side and wait; the exit code is that of the first to fail, else 0.

    Raises `EnvironmentFailure` where a process cannot be started.
    """
    port = _free_port()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):
            try:
                processes.append(subprocess.Popen(command, env=_variables(os.environ, rank, count, port)))
            except OSError as error:
                raise EnvironmentFailure(f"process {rank} cannot be started: {error.strerror or error}") from None
        return _wait(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


def _variables(own: Mapping[str, str], rank: int, count: int, port: int) -> dict[str, str]:
    return {
        **own,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((_HOST, 0))
        return int(found.getsockname()[1])


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    failed, deadline = 0, float("inf")
    while True:
        codes = [process.poll() for process in processes]
        if failed == 0 and any(codes):
            failed = next(code for code in codes if code)
            deadline = time.monotonic() + _GRACE_SECONDS
        if all(code is not None for code in codes) or time.monotonic() > deadline:
            return failed if failed >= 0 else 128 - failed  # as a shell tells of a signal
        time.sleep(_POLL_SECONDS)


def main(arguments: Sequence[str]) -> int:
    """The command. Raises `UsageError` for arguments of another form."""
    if len(arguments) < 2 or not arguments[0].isascii() or not arguments[0].isdigit():
        raise UsageError("usage: python -m pot.recording.launch COUNT SCRIPT ARGS...")
    count = int(arguments[0][:9])
    if not 1 <= count <= most_processes():
        raise UsageError(f"launch: {count} processes; 1 to {most_processes()} can be started on this machine")
    return launch(count, [sys.executable, "-s", "-B", *arguments[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
