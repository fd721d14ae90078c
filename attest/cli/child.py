"""A child that runs to its end while signals to this process are passed on, so that none is left behind.

Shows / does not show: nothing; the recorder's own lines survive whatever ends it.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import IO, Final

from attest.cli.ending import note

__all__ = ["run_child"]

_LOOK_SECONDS: Final = 0.2
_TERMINAL_SECONDS: Final = 2.0  # Ctrl-C reaches the child by itself; one that hears it twice could not tidy up
_GRACE_SECONDS: Final = 30.0
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_child(
    command: Sequence[str], variables: Mapping[str, str], output: IO[str] | None = None
) -> tuple[int, signal.Signals | None]:
    """Run a command to its end: its exit code, and the first signal that asked this process to end, if one did.

    The child gets SIGTERM for SIGTERM and SIGHUP at once, SIGINT if it is not ended by the terminal's own, and SIGKILL
    if it is still there half a minute later. Signals that are ignored here (nohup) stay so. Raises `OSError` where the
    command cannot be started.
    """
    heard: list[signal.Signals] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(signal.Signals(number))

    before = {number: signal.getsignal(number) for number in _PASSED_ON}
    own = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in own:
        signal.signal(number, hear)
    try:
        return _wait(subprocess.Popen(command, env=variables, stdout=output), heard), heard[0] if heard else None
    finally:
        for number in own:
            signal.signal(number, before[number])
        if heard:
            note(heard[0])


def _wait(process: subprocess.Popen[bytes], heard: Sequence[signal.Signals]) -> int:
    due: list[tuple[float, signal.Signals]] = []
    passed = 0
    while True:
        try:
            return process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        for number in heard[passed:]:
            first = (now + _TERMINAL_SECONDS, number) if number == signal.SIGINT else (now, signal.SIGTERM)
            due += [first, (now + _GRACE_SECONDS, signal.SIGKILL)]
        passed = len(heard)
        for item in [item for item in due if item[0] <= now]:
            due.remove(item)
            process.send_signal(item[1])
