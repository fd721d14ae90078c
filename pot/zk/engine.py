"""ezkl behind an interface of a few calls, each in a subprocess with limits.

ezkl parses bytes that others wrote, holds the interpreter lock, panics, and hangs on values outside a table. So every
call gets a fresh process: its own empty folder (also as home and as table cache, which ezkl trusts unchecked), a clean
environment, limits on memory, CPU time, wall time and file size. Whatever happens there becomes one of our errors.

Another prover can stand beside it by meeting `Engine`.

Shows: nothing. Does not show: that ezkl is sound; its answers mean what ezkl's documentation says they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from pot.errors import Malformed, MissingExtra
from pot.zk.circuits.field import ELEMENT_BYTES, Vector, encode
from pot.zk.engine_process import Child, EngineFailure, Limits, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Engine", "EngineFailure", "EzklEngine", "Limits", "Setup", "Usage"]

GIB: Final = 1 << 30
VERIFY_LIMITS: Final = Limits(wall_seconds=120.0, cpu_seconds=240, memory_bytes=4 * GIB, file_bytes=64 << 20)
COMMIT_BLOCK_BYTES: Final = 64 << 20  # vectors handed to one child at once


@dataclass(frozen=True)
class Setup:
    """Keys of a circuit, in the folder given; `tables` are the names of the lookup tables that ezkl built."""

    verifying_key: bytes
    tables: tuple[str, ...]
    version: str


class Engine(Protocol):
    """What the project needs of a prover. Files are given as bytes, or as paths where they are large."""

    def version(self) -> str:
        """The version of the prover that runs here. Raises `MissingExtra`."""

    def make_srs(self, logrows: int) -> bytes:
        """A fresh SRS whose secret this machine knew."""

    def settings(self, onnx: bytes, arguments: Mapping[str, Any]) -> bytes:
        """Raw settings for a graph."""

    def setup(self, onnx: bytes, settings: bytes, srs: bytes, folder: Path | None) -> Setup:
        """Compile and make the keys; `folder`, if any, receives `compiled` and `pk`."""

    def commit(self, vectors: Sequence[Vector], settings: bytes, verifying_key: bytes, srs: bytes) -> list[str]:
        """One KZG point (128 hex digits, as in a proof) per vector."""

    def prove(self, folder: Path, inputs: Sequence[Vector], expected: Vector | None) -> bytes:
        """The proof of a witness; refuses public outputs unlike `expected`."""

    def mock(self, folder: Path, inputs: Sequence[Vector]) -> tuple[bool, Vector]:
        """Whether the constraints hold, and the public outputs."""

    def verify(
        self, proofs: Sequence[tuple[bytes, Vector]], settings: bytes, verifying_key: bytes, srs: bytes
    ) -> list[bool]:
        """Whether each proof verifies for the public outputs that the verifier expects."""


class EzklEngine:
    """`Engine` over the installed ezkl. `limits` hold for proving calls, `verify_limits` for verification."""

    def __init__(self, limits: Limits | None = None, verify_limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._verify_limits = verify_limits or VERIFY_LIMITS
        self.usage: list[Usage] = []
        """What every call took, in order."""

    def version(self) -> str:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ezkl")
        except PackageNotFoundError:
            raise MissingExtra("zk", "making or checking step proofs") from None

    def make_srs(self, logrows: int) -> bytes:
        with self._child("make_srs") as child:
            child.run(logrows=logrows)
            return child.read("srs")

    def settings(self, onnx: bytes, arguments: Mapping[str, Any]) -> bytes:
        with self._child("settings") as child:
            child.write("step.onnx", onnx)
            child.run(arguments=dict(arguments))
            return child.read("settings.raw.json")

    def setup(self, onnx: bytes, settings: bytes, srs: bytes, folder: Path | None) -> Setup:
        with self._child("setup") as child:
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
            with self._child("commit") as child:
                for name, data in (("settings.json", settings), ("vk", verifying_key), ("srs", srs)):
                    child.write(name, data)
                child.write("vectors", b"".join(encode(vector) for vector in block))
                reply = child.run(lengths=[len(vector) for vector in block])
                found = reply.get("points")
                if not isinstance(found, list) or len(found) != len(block):
                    raise EngineFailure("commit", "it answered another number of points")
                points.extend(str(point) for point in found)
        return points

    def prove(self, folder: Path, inputs: Sequence[Vector], expected: Vector | None) -> bytes:
        with self._child("prove") as child:
            self._stage(child, folder, inputs, ("compiled", "pk", "vk", "srs"))
            wanted = None if expected is None else encode(expected).hex()
            reply = child.run(lengths=[len(vector) for vector in inputs], expected=wanted)
            if not reply["proven"]:
                raise Malformed("the circuit computes another result than the integer reference for this step")
            return bytes.fromhex(str(reply["hex_proof"]).removeprefix("0x"))

    def mock(self, folder: Path, inputs: Sequence[Vector]) -> tuple[bool, Vector]:
        with self._child("mock") as child:
            self._stage(child, folder, inputs, ("compiled", "vk", "srs"))
            reply = child.run(lengths=[len(vector) for vector in inputs])
            outputs = [int.from_bytes(bytes.fromhex(e), "little") for out in reply["outputs"] for e in out]
            return bool(reply["satisfied"]), outputs

    def verify(
        self, proofs: Sequence[tuple[bytes, Vector]], settings: bytes, verifying_key: bytes, srs: bytes
    ) -> list[bool]:
        with self._child("verify", self._verify_limits) as child:
            for name, data in (("settings.json", settings), ("vk", verifying_key), ("srs", srs)):
                child.write(name, data)
            bodies = [[proof.hex(), encode(public).hex()] for proof, public in proofs]
            valid = child.run(proofs=bodies).get("valid")
            if not isinstance(valid, list) or len(valid) != len(proofs):
                raise EngineFailure("verify", "it answered another number of results")
            return [result is True for result in valid]

    def _child(self, call: str, limits: Limits | None = None) -> Child:
        return Child(call, limits or self._limits, self.usage)

    @staticmethod
    def _stage(child: Child, folder: Path, inputs: Sequence[Vector], names: Sequence[str]) -> None:
        for name in names:
            child.link((folder.parent if name == "srs" else folder) / name, name)
        child.write("vectors", b"".join(encode(vector) for vector in inputs))


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
