"""ezkl behind an interface of a few calls, each in a subprocess with limits.

ezkl parses bytes that others wrote, holds the interpreter lock, panics, and hangs on values outside a table. So every
call gets a fresh process: its own empty folder (also as home and as table cache, which ezkl trusts unchecked), a clean
environment, limits on memory, CPU time, wall time and file size. Whatever happens there becomes one of our errors.

Another prover can stand beside it by meeting `Engine`.

Shows: nothing. Does not show: that ezkl is sound; its answers mean what ezkl's documentation says they mean.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from pot.errors import EnvironmentFailure, Malformed, MissingExtra, PotError
from pot.zk.packing import ELEMENT_BYTES, Vector, encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Engine", "EngineFailure", "EzklEngine", "Limits", "Setup"]

GIB: Final = 1 << 30
MAX_REPLY_BYTES: Final = 256 << 20  # points of a million vectors
COMMIT_BLOCK_BYTES: Final = 64 << 20  # vectors handed to one child at once


class EngineFailure(PotError):
    """ezkl refused, crashed, or ran past its limits; the sentence says which call and how."""

    exit_code = 4

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"ezkl's {call} failed: {reason}")
        self.call, self.reason = call, reason


@dataclass(frozen=True)
class Limits:
    """What one call may use: wall seconds, CPU seconds, bytes of address space, bytes of any file it writes."""

    wall_seconds: float = 900.0
    cpu_seconds: int = 3600
    memory_bytes: int = 16 * GIB
    file_bytes: int = 8 * GIB


VERIFY_LIMITS: Final = Limits(wall_seconds=120.0, cpu_seconds=240, memory_bytes=4 * GIB, file_bytes=64 << 20)


@dataclass(frozen=True)
class Setup:
    """Keys of a circuit, in the folder given; `tables` are the names of the lookup tables that ezkl built."""

    verifying_key: bytes
    tables: tuple[str, ...]
    version: str


class Engine(Protocol):
    """What the project needs of a prover. Files are given as bytes, or as paths where they are large."""

    def make_srs(self, logrows: int) -> bytes:
        """A fresh SRS whose secret this machine knew."""

    def settings(self, onnx: bytes, arguments: Mapping[str, Any]) -> bytes:
        """Raw settings for a graph."""

    def setup(self, onnx: bytes, settings: bytes, srs: bytes, folder: Path | None) -> Setup:
        """Compile and make the keys; `folder`, if any, receives `compiled` and `pk`."""

    def commit(self, vectors: Sequence[Vector], settings: bytes, verifying_key: bytes, srs: bytes) -> list[str]:
        """One KZG point (128 hex digits, as in a proof) per vector."""

    def prove(self, folder: Path, inputs: Sequence[Vector], expected: Sequence[Vector] | None) -> bytes:
        """The proof of a witness; refuses outputs unlike `expected`."""

    def mock(self, folder: Path, inputs: Sequence[Vector]) -> tuple[bool, list[list[int]]]:
        """Whether the constraints hold, and the outputs."""

    def verify(self, proofs: Sequence[bytes], settings: bytes, verifying_key: bytes, srs: bytes) -> list[bool]:
        """Whether each proof verifies."""


class EzklEngine:
    """`Engine` over the installed ezkl. `limits` hold for proving calls, `verify_limits` for verification."""

    def __init__(self, limits: Limits | None = None, verify_limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._verify_limits = verify_limits or VERIFY_LIMITS

    def make_srs(self, logrows: int) -> bytes:
        with _Child("make_srs", self._limits) as child:
            child.run(logrows=logrows)
            return child.read("srs")

    def settings(self, onnx: bytes, arguments: Mapping[str, Any]) -> bytes:
        with _Child("settings", self._limits) as child:
            child.write("step.onnx", onnx)
            child.run(arguments=dict(arguments))
            return child.read("settings.raw.json")

    def setup(self, onnx: bytes, settings: bytes, srs: bytes, folder: Path | None) -> Setup:
        with _Child("setup", self._limits) as child:
            for name, data in (("step.onnx", onnx), ("settings.json", settings), ("srs", srs)):
                child.write(name, data)
            reply = child.run(home=str(child.home))
            if folder is not None:
                for name in ("compiled", "pk"):
                    child.move(name, folder / name)
            return Setup(child.read("vk"), tuple(str(name) for name in reply["tables"]), child.version)

    def commit(self, vectors: Sequence[Vector], settings: bytes, verifying_key: bytes, srs: bytes) -> list[str]:
        points: list[str] = []
        for block in _blocks(vectors):
            with _Child("commit", self._limits) as child:
                for name, data in (("settings.json", settings), ("vk", verifying_key), ("srs", srs)):
                    child.write(name, data)
                child.write("vectors", b"".join(encode(vector) for vector in block))
                reply = child.run(lengths=[len(vector) for vector in block])
                found = reply.get("points")
                if not isinstance(found, list) or len(found) != len(block):
                    raise EngineFailure("commit", "it answered another number of points")
                points.extend(str(point) for point in found)
        return points

    def prove(self, folder: Path, inputs: Sequence[Vector], expected: Sequence[Vector] | None) -> bytes:
        with _Child("prove", self._limits) as child:
            self._stage(child, folder, inputs, ("compiled", "pk", "vk", "srs"))
            child.write("expected", b"".join(encode(vector) for vector in expected or ()))
            reply = child.run(
                lengths=[len(vector) for vector in inputs], expected=[len(vector) for vector in expected or ()]
            )
            if not reply["proven"]:
                raise Malformed("the circuit computes another result than the integer reference for this step")
            text = reply["hex_proof"]
            if reply["instances"] not in ([[]], []) or not isinstance(text, str):
                raise EngineFailure("prove", "the proof has public instances, none were expected")
            return bytes.fromhex(text.removeprefix("0x"))

    def mock(self, folder: Path, inputs: Sequence[Vector]) -> tuple[bool, list[list[int]]]:
        with _Child("mock", self._limits) as child:
            self._stage(child, folder, inputs, ("compiled", "vk", "srs"))
            reply = child.run(lengths=[len(vector) for vector in inputs])
            outputs = [[int.from_bytes(bytes.fromhex(e), "little") for e in out] for out in reply["outputs"]]
            return bool(reply["satisfied"]), outputs

    def verify(self, proofs: Sequence[bytes], settings: bytes, verifying_key: bytes, srs: bytes) -> list[bool]:
        with _Child("verify", self._verify_limits) as child:
            for name, data in (("settings.json", settings), ("vk", verifying_key), ("srs", srs)):
                child.write(name, data)
            valid = child.run(proofs=[proof.hex() for proof in proofs]).get("valid")
            if not isinstance(valid, list) or len(valid) != len(proofs):
                raise EngineFailure("verify", "it answered another number of results")
            return [result is True for result in valid]

    @staticmethod
    def _stage(child: _Child, folder: Path, inputs: Sequence[Vector], names: Sequence[str]) -> None:
        for name in names:
            child.link(folder / name, name)
        child.write("vectors", b"".join(encode(vector) for vector in inputs))


class _Child:
    """One call in one process in one folder, which is gone afterwards."""

    def __init__(self, call: str, limits: Limits) -> None:
        self._call, self._limits = call, limits
        self.version = ""

    def __enter__(self) -> _Child:
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
        status = self._execute()
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


def _blocks(vectors: Sequence[Vector]) -> list[list[Vector]]:
    blocks: list[list[Vector]] = []
    size = COMMIT_BLOCK_BYTES
    for vector in vectors:
        length = len(vector) * ELEMENT_BYTES
        if size + length > COMMIT_BLOCK_BYTES:
            blocks.append([])
            size = 0
        blocks[-1].append(vector)
        size += length
    return blocks
