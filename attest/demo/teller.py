"""How the story is told: headings, the commands as a user would type them, short tables, and what went wrong."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from attest.cli.terminal import clean, say
from pot.canonical import parse
from pot.errors import EnvironmentFailure, PotError

__all__ = ["Ended", "Teller"]

_POT: Final = (sys.executable, "-m", "attest.cli")
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

    def pot(self, words: str, *, expect: int = 0) -> Ended:
        """Run `pot WORDS` in the folder and demand its exit code. Raises `PotError` when it ends another way."""
        say(f"    $ pot {words}")
        return self._finish(self._call(words), f"pot {words}", expect)

    def quote(self, output: str) -> None:
        """What a command said, indented."""
        for line in output.splitlines():
            if line.strip():
                say("      " + line)

    def program(self, words: str) -> Ended:
        """Run a Python program in the folder and demand that it succeeds."""
        say(f"    $ python {words}")
        return self.finish(self._start([sys.executable, *shlex.split(words)]), f"python {words}")

    def kill_when(self, process: subprocess.Popen[str], moment: Callable[[], bool]) -> None:
        """Send SIGKILL to a program started by `start_program` as soon as the moment has come."""
        deadline = time.monotonic() + _COMMAND_SECONDS
        while process.poll() is None and not moment() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            raise PotError(f"the program ended with {process.returncode} before it could be killed; see its run folder")

    def verdict(self, folder: str, policy: str) -> dict[str, Any]:
        """The report on a release bundle, whatever its verdict."""
        ended = self._call(f"verify {folder} --policy {policy} --offline --json")
        if ended.code not in (0, 1, 3):
            self._finish(ended, f"pot verify {folder}", 0)
        report: dict[str, Any] = parse(ended.out.encode(), what="report")
        return report

    def start_pot(self, words: str) -> subprocess.Popen[str]:
        """Start `pot WORDS` and go on; `finish` waits for it."""
        say(f"    $ pot {words} &")
        return self._start([*_POT, *shlex.split(words)])

    def start_program(self, words: str) -> subprocess.Popen[str]:
        """Start `python WORDS` and go on; `finish` waits for it."""
        say(f"    $ python {words} &")
        return self._start([sys.executable, *shlex.split(words)])

    def finish(self, process: subprocess.Popen[str], name: str, *, expect: int = 0) -> Ended:
        """Wait for a program started by `start_program` or `start_pot` and demand its exit code."""
        try:
            out, err = process.communicate(timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise EnvironmentFailure(f"{name} did not end within {_COMMAND_SECONDS} s and was stopped") from None
        return self._finish(Ended(process.returncode, out, err), name, expect)

    def _call(self, words: str) -> Ended:
        """The command in this process: what the script `pot` calls, without half a second of start-up each time."""
        from attest.cli.main import main

        out, err, here = io.StringIO(), io.StringIO(), Path.cwd()
        os.chdir(self.folder)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = main(shlex.split(words))
        finally:
            os.chdir(here)
        return Ended(code, out.getvalue(), err.getvalue())

    def _start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _finish(self, ended: Ended, words: str, expect: int) -> Ended:
        if ended.code == expect:
            return ended
        for text in (ended.out, ended.err):
            for line in text.splitlines()[-20:]:
                say("      | " + clean(line))
        raise PotError(f"{words} ended with exit code {ended.code}, the story expects {expect}")
