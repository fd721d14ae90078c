"""How a command ends by a signal: SIGTERM (a scheduler, `timeout`) and SIGHUP end it as Ctrl-C does, tidied up.

Shows / does not show: nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Final

__all__ = ["heard", "listen", "note"]

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_heard: Final[list[signal.Signals]] = []


def listen() -> None:
    """From now on the first such signal raises `KeyboardInterrupt`; later ones are ignored while that tidies up.

    Signals that are ignored already (nohup) stay so. A process that is forked from this one ends by them as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    own = os.getpid()

    def hear(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        _heard.append(signal.Signals(number))
        raise KeyboardInterrupt

    for number in _ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, hear)


def note(number: signal.Signals) -> None:
    """Keep a signal that somebody else heard for a while, and after which the command ends."""
    if number in _ENDING:
        _heard.append(number)


def heard() -> signal.Signals | None:
    """The signal that asked this command to end; None where none did, or Ctrl-C."""
    return _heard[0] if _heard else None
