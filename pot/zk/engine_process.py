"""One call of ezkl in one process in one folder, under limits; whatever happens there becomes one of our errors.

The process gets a clean environment, its own empty folder (also as home and as table cache, which ezkl trusts
unchecked), and limits on memory, CPU time, wall time and file size. See `pot.zk.engine_child` for what runs in it.

Shows: nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pot.errors import EnvironmentFailure, MissingExtra, PotError

__all__ = ["Child", "EngineFailure", "Limits", "Usage"]

GIB: Final = 1 << 30
MAX_REPLY_BYTES: Final = 256 << 20  # points of a million vectors


class EngineFailure(PotError):
    """ezkl refused, crashed, or ran past its limits; the sentence says which call and how."""

    exit_code = 4

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"ezkl's {call} failed: {reason}")
        self.call, self.reason = call, reason

    def __reduce__(self) -> tuple[type[EngineFailure], tuple[str, str]]:
        return type(self), (self.call, self.reason)  # it crosses process pools


@dataclass(frozen=True)
class Limits:
    """What one call may use: wall seconds, CPU seconds, bytes of address space, bytes of any file it writes."""

    wall_seconds: float = 900.0
    cpu_seconds: int = 3600
    memory_bytes: int = 16 * GIB
    file_bytes: int = 8 * GIB


@dataclass(frozen=True)
class Usage:
    """What one call took: wall and CPU seconds, and the child's largest resident memory in bytes."""

    call: str
    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int


class Child:
    """One call in one process in one folder, which is gone afterwards."""

    def __init__(self, call: str, limits: Limits, usage: list[Usage]) -> None:
        self._call, self._limits, self._usage = call, limits, usage
        self.version = ""

    def __enter__(self) -> Child:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="pot-zk-"))
            self.home = self._folder / "home"
            self.home.mkdir()
        except OSError as error:
            raise EnvironmentFailure(f"no temporary folder for ezkl: {error.strerror}") from None
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, name: str, data: bytes) -> None:
        try:
            (self._folder / name).write_bytes(data)
        except OSError as error:
            raise EnvironmentFailure(f"{name}: cannot be written for ezkl: {error.strerror}") from None

    def link(self, source: Path, name: str) -> None:
        if not source.is_file():
            raise EnvironmentFailure(f"{source}: missing; make the proving kit again")
        try:
            (self._folder / name).symlink_to(source.resolve())
        except OSError as error:
            raise EnvironmentFailure(f"{name}: cannot be linked for ezkl: {error.strerror}") from None

    def move(self, name: str, target: Path) -> None:
        try:
            shutil.move(self._folder / name, target)
        except OSError as error:
            raise EnvironmentFailure(f"{target}: cannot be written: {error.strerror}") from None

    def read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            raise EngineFailure(self._call, f"it left no {name}") from None

    def run(self, **request: Any) -> dict[str, Any]:
        """Run the call; returns its result. Raises `EngineFailure` or `MissingExtra`."""
        limits = self._limits
        body = {
            **request,
            "call": self._call,
            "memory": limits.memory_bytes,
            "seconds": limits.cpu_seconds,
            "file_bytes": limits.file_bytes,
        }
        self.write("request.json", json.dumps(body).encode())
        start = time.monotonic()
        status = self._execute()
        wall = time.monotonic() - start
        path = self._folder / "reply.json"
        if not path.is_file() or path.stat().st_size > MAX_REPLY_BYTES:
            raise EngineFailure(self._call, f"the process ended without an answer ({_ending(status)})")
        try:
            reply = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            raise EngineFailure(self._call, "its answer is not readable") from None
        if status != 0 or not isinstance(reply, dict):
            raise EngineFailure(self._call, f"it answered, but ended badly ({_ending(status)})")
        if "missing" in reply:
            raise MissingExtra("zk", "making or checking step proofs")
        if "error" in reply:
            raise EngineFailure(self._call, str(reply["error"])[:500])
        result, version = reply.get("result"), reply.get("version")
        if not isinstance(result, dict) or not isinstance(version, str):
            raise EngineFailure(self._call, "its answer has no result")
        self.version = version
        cpu, memory = reply.get("cpu_seconds"), reply.get("memory_bytes")
        if isinstance(cpu, (int, float)) and isinstance(memory, int):
            self._usage.append(Usage(self._call, wall, float(cpu), memory))
        return result

    def _execute(self) -> int:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(self._folder),
            "EZKL_REPO_PATH": str(self.home),
            "LC_ALL": "C.UTF-8",
        }
        command = [sys.executable, "-I", str(Path(__file__).with_name("engine_child.py"))]
        try:
            process = subprocess.Popen(
                command, cwd=self._folder, env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            raise EnvironmentFailure(f"no process for ezkl: {error.strerror}") from None
        try:
            return process.wait(timeout=self._limits.wall_seconds)
        except subprocess.TimeoutExpired:
            seconds = self._limits.wall_seconds
            raise EngineFailure(self._call, f"it was stopped after {seconds:g} seconds without an answer") from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit {status}"
