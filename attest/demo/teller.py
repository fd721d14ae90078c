"""How the story is told: headings, the commands as a user would type them, short tables, and what went wrong."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from attest.cli.terminal import clean, say
from pot.errors import EnvironmentFailure, PotError

__all__ = ["Ended", "Teller"]

_COMMAND_SECONDS: Final = 600  # ten times what the slowest command of the story takes on two cores


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str


@dataclass
class Teller:
    """Tells the story in `folder`: every command runs there, so that each can be repeated by hand."""

    folder: Path
    started: float = field(default_factory=time.monotonic)

    def heading(self, number: int, title: str) -> None:
        """One stage begins; the time since the start is shown beside it."""
        say("")
        say(f"[{time.monotonic() - self.started:5.0f} s] {number}. {title}")

    def line(self, text: str) -> None:
        """One sentence of the story."""
        say(f"    {text}")

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Rows of equal length, columns aligned."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            say("      " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def pot(self, *arguments: str, expect: int = 0) -> Ended:
        """Run `pot ARGUMENTS` in the folder and demand its exit code. Raises `PotError` when it ends another way."""
        say(f"    $ pot {shlex.join(arguments)}")
        command = [sys.executable, "-c", "from attest.cli.main import run; run()", *arguments]
        return self._finish(self._run(command), ["pot", *arguments], expect)

    def program(self, *arguments: str, kill_when: Callable[[], bool] | None = None) -> Ended:
        """Run a Python program in the folder; with `kill_when`, send it SIGKILL as soon as that says so."""
        say(f"    $ python {shlex.join(arguments)}" + ("      (and kill it on the way)" if kill_when else ""))
        command = [sys.executable, *arguments]
        if kill_when is None:
            return self._finish(self._run(command), ["python", *arguments], 0)
        process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _COMMAND_SECONDS
        while process.poll() is None and not kill_when() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        code = process.wait()
        if code != -signal.SIGKILL:
            raise PotError(f"{arguments[0]} ended with {code} before it could be killed; see the run folder")
        return Ended(code, "", "")

    def background(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `python ARGUMENTS` and go on; `finish` waits for it."""
        say(f"    $ python {shlex.join(arguments)} &")
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], name: str) -> Ended:
        """Wait for a program started by `background` and demand that it succeeded."""
        try:
            out, err = process.communicate(timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise EnvironmentFailure(f"{name} did not end within {_COMMAND_SECONDS} s and was stopped") from None
        return self._finish(Ended(process.returncode, out, err), [name], 0)

    def _run(self, command: Sequence[str]) -> Ended:
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EnvironmentFailure(f"{command[1]} did not end within {_COMMAND_SECONDS} s and was stopped") from None
        return Ended(done.returncode, done.stdout, done.stderr)

    def _finish(self, ended: Ended, words: Sequence[str], expect: int) -> Ended:
        if ended.code == expect:
            return ended
        for text in (ended.out, ended.err):
            for line in text.splitlines()[-20:]:
                say("      | " + clean(line))
        raise PotError(f"{shlex.join(words)} ended with exit code {ended.code}, the story expects {expect}")
