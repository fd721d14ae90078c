"""The release bundle: a model's folder with its claims and evidence; each line of claims is one Sigstore bundle.

Spec: `specs/certificate.md`, "Release bundle"; upstream Sigstore bundle v0.3
(https://github.com/sigstore/protobuf-specs, `sigstore_bundle.proto`). Reading is step 1 of verification: caps first,
symbolic links refused, every byte read once, objects only when something refers to them. An object whose bytes do not
hash to its name is not there. What is damaged among them is noted and left out: junk can neither help nor harm.

Does not define: what a claim means, or whether its signature is good (`attest.verdict`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from attest.envelope import Envelope
from pot.canonical import MAX_LINE_BYTES, Document, parse, read_file, sha256_hex
from pot.commitments.model import ModelFile, model_files
from pot.errors import EnvironmentFailure, LimitExceeded, UsageError

__all__ = [
    "BUNDLE_MEDIA_TYPE",
    "CLAIMS_FILE",
    "MAX_CLAIMS_BYTES",
    "MAX_LINES",
    "MAX_TOTAL_BYTES",
    "OBJECTS_FOLDER",
    "WEIGHTS_FILE",
    "FolderObjects",
    "Note",
    "PublicKeyHint",
    "ReleaseBundle",
    "SigstoreBundle",
    "VerificationMaterial",
    "check_weights_size",
    "join_lines",
    "read_release",
    "split_lines",
]

BUNDLE_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
CLAIMS_FILE: Final = "claims.jsonl"
OBJECTS_FOLDER: Final = ".pot/objects"
WEIGHTS_FILE: Final = "model.safetensors"

MAX_TOTAL_BYTES: Final = 1 << 30  # weights, claims and objects together: what one verification may hold in memory
MAX_CLAIMS_BYTES: Final = 64 << 20
MAX_LINES: Final = 4096

Base64 = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9+/=]*\z", max_length=MAX_LINE_BYTES)]


class PublicKeyHint(Document):
    """An unauthenticated hint at the key; verification never uses it to choose one."""

    hint: Annotated[str, StringConstraints(pattern=r"\A[!-~]{0,256}\z")]


class VerificationMaterial(Document):
    """Material for verification. Long-lived keys only need the hint; some readers want the empty list of entries."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    public_key: PublicKeyHint = Field(alias="publicKey")
    tlog_entries: Annotated[list[str], Field(max_length=0)] | None = Field(alias="tlogEntries", default=None)


class SigstoreBundle(Document):
    """One Sigstore bundle v0.3 with a DSSE envelope signed by a long-lived key; field names are upstream's."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"] = Field(alias="mediaType")
    verification_material: VerificationMaterial = Field(alias="verificationMaterial")
    dsse_envelope: Envelope = Field(alias="dsseEnvelope")

    @classmethod
    def make(cls, envelope: Envelope, hint: str) -> SigstoreBundle:
        """Wrap a signed envelope."""
        return cls(
            media_type=BUNDLE_MEDIA_TYPE,
            verification_material=VerificationMaterial(public_key=PublicKeyHint(hint=hint), tlog_entries=[]),
            dsse_envelope=envelope,
        )

    @classmethod
    def from_line(cls, line: bytes, *, what: str) -> SigstoreBundle:
        """Read one line. Strict JSON, but not necessarily canonical: bundles are malleable, payloads are not.

        Raises `Malformed`, `LimitExceeded`.
        """
        return cls.from_value(parse(line, what=what, limit=MAX_LINE_BYTES), what=what)


@dataclass(frozen=True)
class Note:
    """Something in the release bundle that was left out, and why."""

    code: Literal["claims-line", "object"]
    subject: str
    detail: str


@dataclass(frozen=True)
class ReleaseBundle:
    """A release bundle in memory: pure data, so that tests and the HTTP service can make one without a disk.

    `files`: the model's own files in name order. `weights`: the bytes of `model.safetensors` if it is among them.
    `lines`: the lines of `claims.jsonl` in file order, without line ends. `objects`: SHA-256 (hex) -> bytes that claim
    to have it; take them through `object`, which checks that they do.
    """

    name: str
    files: tuple[ModelFile, ...]
    weights: bytes | None
    lines: tuple[bytes, ...]
    objects: Mapping[str, bytes]
    notes: tuple[Note, ...] = field(default=())

    def object(self, sha256: str) -> bytes | None:
        """The object with this digest; None where it is not there or its bytes do not hash to its name."""
        data = self.objects.get(sha256)
        if data is None or sha256_hex(data) != sha256:
            return None
        return data


def split_lines(data: bytes) -> list[bytes]:
    """The non-empty lines of `claims.jsonl`. Raises `LimitExceeded`."""
    if data.count(b"\n") > MAX_LINES:
        raise LimitExceeded(f"{CLAIMS_FILE}: more than {MAX_LINES} lines")
    return [line for line in data.split(b"\n") if line]


def join_lines(lines: list[bytes]) -> bytes:
    """`claims.jsonl` of these lines; the same line twice is written once."""
    return b"".join(line + b"\n" for line in dict.fromkeys(lines))


def read_release(folder: Path) -> ReleaseBundle:
    """Read a release bundle from disk, once, within the caps. Opens no network, loads no pickle, runs no code.

    Raises `UsageError` (no such folder, symbolic links, special files), `LimitExceeded`, `EnvironmentFailure`.
    """
    _check_folder(folder)
    check_weights_size(folder)
    files = model_files(folder)
    budget = MAX_TOTAL_BYTES
    weights = _read_weights(folder, files, budget)
    budget -= len(weights or b"")
    notes: list[Note] = []
    claims = b""
    if os.path.lexists(folder / CLAIMS_FILE):
        claims = read_file(folder / CLAIMS_FILE, limit=min(MAX_CLAIMS_BYTES, budget))
    objects = _list_objects(folder, budget - len(claims), notes)
    return ReleaseBundle(
        name=folder.resolve().name,
        files=tuple(files),
        weights=weights,
        lines=tuple(split_lines(claims)),
        objects=objects,
        notes=tuple(notes),
    )


def _check_folder(folder: Path) -> None:
    try:
        if folder.is_symlink():
            raise UsageError(f"{folder}: is a symbolic link; give the model's folder itself")
        if not folder.exists():
            raise UsageError(f"{folder}: no such folder; give the folder of a released model")
        if not folder.is_dir():
            raise UsageError(f"{folder}: not a folder; give the folder of a released model")
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(folder)[:200]}: cannot be a path: {error}") from None


def check_weights_size(folder: Path) -> None:
    """Refuse weights over the cap before anything is hashed: a sparse file of any size costs its sender nothing.

    Raises `LimitExceeded`.
    """
    path = folder / WEIGHTS_FILE
    size = os.lstat(path).st_size if path.is_file() else 0
    if size > MAX_TOTAL_BYTES:
        raise LimitExceeded(f"{path}: {size} bytes, more than the limit of {MAX_TOTAL_BYTES}")


def _read_weights(folder: Path, files: list[ModelFile], budget: int) -> bytes | None:
    for file in files:
        if file.path == WEIGHTS_FILE:
            data = read_file(folder / WEIGHTS_FILE, limit=budget)
            if sha256_hex(data) != file.sha256:
                raise EnvironmentFailure(f"{folder / WEIGHTS_FILE}: changed while it was read; try again")
            return data
    return None


class FolderObjects(Mapping[str, bytes]):
    """The objects of a folder, read when they are asked for: junk that nothing refers to costs nothing.

    Values are the files' bytes as they are; `ReleaseBundle.object` compares them with the name.
    """

    def __init__(self, folder: Path, names: list[str], budget: int) -> None:
        """`names`: the digests that have a file. `budget`: bytes that may be read in all."""
        self._folder, self._names, self._budget = folder, frozenset(names), budget
        self._known: dict[str, bytes] = {}

    def __getitem__(self, sha256: str) -> bytes:
        """The bytes of one object, read once. Raises `KeyError`, `LimitExceeded`, `EnvironmentFailure`."""
        if sha256 not in self._names:
            raise KeyError(sha256)
        if sha256 not in self._known:
            data = read_file(self._folder / sha256, limit=self._budget, what=f"{OBJECTS_FOLDER}/{sha256}")
            self._budget -= len(data)
            self._known[sha256] = data
        return self._known[sha256]

    def __iter__(self) -> Iterator[str]:
        """The digests that have a file, in order."""
        return iter(sorted(self._names))

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._names)


def _list_objects(folder: Path, budget: int, notes: list[Note]) -> FolderObjects:
    """The objects that may be read. A file that cannot be one is noted and skipped."""
    root = folder / OBJECTS_FOLDER
    for part in (folder / ".pot", root):
        if part.is_symlink() or (part.exists() and not part.is_dir()):
            raise UsageError(f"{part}: expected a folder, not a link or a file")
    try:
        names = sorted(os.listdir(root)) if root.is_dir() else []
    except OSError as error:
        raise EnvironmentFailure(f"{root}: cannot be read: {error.strerror or error}") from None
    good: list[str] = []
    for name in names:
        path = root / name
        if not re.fullmatch(r"[0-9a-f]{64}", name):
            notes.append(Note("object", f"{OBJECTS_FOLDER}/{name}", "its name is not a SHA-256 digest; left out"))
        elif path.is_symlink() or not path.is_file():
            notes.append(Note("object", f"{OBJECTS_FOLDER}/{name}", "a link or not a regular file; left out"))
        else:
            good.append(name)
    return FolderObjects(root, good, budget)
