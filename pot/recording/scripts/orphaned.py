"""A recorded script ends with the process that started it, however that one ends: nobody would read what it reports.

Shows / does not show: nothing; lines that are written stay, and the run can be gone on with.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Final

__all__ = ["end_with_parent"]

_LOOK_SECONDS: Final = 0.5


def end_with_parent() -> None:
    """Send this process SIGTERM when its parent is another one than now."""
    parent, own = os.getppid(), os.getpid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os.kill(own, signal.SIGTERM)

    threading.Thread(target=watch, name="pot-parent", daemon=True).start()
