"""Hidden leaves: record digests made with a key, so that nobody without it can test guesses about records.

Spec: `specs/hiding.md`. Method `blake3-keyed/1`: the digest is keyed BLAKE3 of the view's bytes. Method `ecvrf/1`: it
is made from the VRF output for the plain digest; the key's holder can prove single outputs to others (`pot.data.door`).

Shows: nothing by itself. Two commitments with the same method and id were made under the same key.
Does not show: that the key was kept secret; how many records there are is never hidden.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel

from pot.canonical import Document, Hex32, derive, read_file
from pot.errors import EnvironmentFailure, Malformed, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BLAKE3_KEYED", "ECVRF", "Hiding", "HidingKey", "Method", "blinded", "check_key", "load_key", "new_key"]

Method = Literal["blake3-keyed/1", "ecvrf/1"]
BLAKE3_KEYED: Final = "blake3-keyed/1"
ECVRF: Final = "ecvrf/1"

KEY_BYTES: Final = 32
MAX_KEY_FILE_BYTES: Final = 1024  # the one line has 88
_LEAF_CONTEXT: Final = "pot/hiding-leaf/v1"
_ID_CONTEXT: Final = "pot/hiding-id/v1"
_VRF_CONTEXT: Final = "pot/hiding-vrf/v1"
_MARKS: Final[dict[str, Method]] = {"pot-hiding-blake3-v1": BLAKE3_KEYED, "pot-hiding-ecvrf-v1": ECVRF}
_CHUNK: Final = 256  # digests between two calls of a progress function: 0.05 s


class Hiding(BaseModel):
    """How leaves are hidden. `id` names the key without giving it away: under `ecvrf/1` the public key."""

    model_config = Document.model_config

    method: Method
    id: Hex32


@dataclass(frozen=True, slots=True)
class HidingKey:
    """A secret key, 32 bytes, and the method that it is for."""

    method: Method
    secret: bytes = field(repr=False)

    @property
    def hiding(self) -> Hiding:
        """What a commitment under this key publishes. Raises `MissingExtra` (ecvrf)."""
        if self.method == BLAKE3_KEYED:
            return Hiding(method=self.method, id=derive(_ID_CONTEXT, self.secret).hex())
        from pot.commitments.vrf import public_key

        return Hiding(method=self.method, id=public_key(self.secret).hex())

    @property
    def leaf_key(self) -> bytes | None:
        """The key (32 bytes) that records and grams are hashed with; None under `ecvrf/1`, which blinds digests."""
        return derive(_LEAF_CONTEXT, self.secret) if self.method == BLAKE3_KEYED else None

    def blind(
        self, digests: NDArray[np.uint8], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.uint8]:
        """The hidden digests of plain record digests, both uint8 of shape (n, 32); `ecvrf/1` only, 0.2 to 0.3 ms each.

        `progress`: called with (done, all). Raises `UsageError`, `MissingExtra`.
        """
        import numpy as np

        from pot.commitments.vrf import output, public_key

        if self.method != ECVRF:
            raise UsageError(f"hiding: a key for {self.method} hashes records; it does not blind digests")
        if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != KEY_BYTES:
            raise UsageError(f"hiding: digests must be rows of {KEY_BYTES} bytes, not {digests.shape}")
        public, out = public_key(self.secret), np.empty((len(digests), KEY_BYTES), np.uint8)
        for start in range(0, len(digests), _CHUNK):
            some = digests[start : start + _CHUNK]
            joined = b"".join(blinded(output(self.secret, row.tobytes(), public)) for row in some)
            out[start : start + len(some)] = np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)
            if progress is not None:
                progress(start + len(some), len(digests))
        return out

    def save(self, path: Path) -> None:
        """Write the key file with mode 0600. Raises `UsageError` where `path` exists, `EnvironmentFailure`."""
        mark = next(mark for mark, method in _MARKS.items() if method == self.method)
        if not path.name or path.is_symlink() or path.exists():
            raise UsageError(f"{path}: exists already; a key is never overwritten, choose another name")
        made = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # O_EXCL: also a file that appears meanwhile, or a link that somebody planted, is not written through
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            made = True
            with os.fdopen(handle, "wb") as stream:
                stream.write(f"{mark} {self.secret.hex()}\n".encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            if made:  # half a key is none
                path.unlink(missing_ok=True)
            raise EnvironmentFailure(f"{path}: the key cannot be written: {error.strerror or error}") from None


def blinded(beta: bytes) -> bytes:
    """The hidden record digest, 32 bytes, of a VRF output, 64 bytes."""
    return derive(_VRF_CONTEXT, beta)


def new_key(method: str) -> HidingKey:
    """A new key from the operating system's randomness. Raises `UsageError` for an unknown method, `MissingExtra`."""
    for known in _MARKS.values():
        if method == known:
            key = HidingKey(known, secrets.token_bytes(KEY_BYTES))
            _ = key.hiding  # a key that cannot be used here is better not made
            return key
    raise UsageError(f"hiding method {method!r} is not one of {', '.join(_MARKS.values())}")


def check_key(hiding: Hiding | None, key: HidingKey | None, what: str) -> None:
    """Refuse a key that is not the one that `what` was hidden under, a missing one, or one that is not needed.

    Without the right key every question would be answered "not there". Raises `UsageError`.
    """
    if hiding is None and key is not None:
        raise UsageError(f"{what} is not hidden; leave --key-file out")
    if hiding is not None and key is None:
        raise UsageError(f"{what} needs its hiding key: give the key with id {hiding.id} as --key-file")
    if hiding is not None and key is not None and key.hiding != hiding:
        raise UsageError(f"{what} is hidden under another key: give the key with id {hiding.id} as --key-file")


def load_key(path: Path) -> HidingKey:
    """Read a key file: one line, its mark and 64 hex digits. Warns where others may read the file.

    Raises `UsageError`, `Malformed`, `LimitExceeded`, `EnvironmentFailure`.
    """
    data = read_file(path, limit=MAX_KEY_FILE_BYTES)
    mark, _, digits = data.decode("ascii", "replace").removesuffix("\n").partition(" ")
    if mark not in _MARKS or len(digits) != 2 * KEY_BYTES or not set(digits) <= set("0123456789abcdef"):
        raise Malformed(f"{path}: not a hiding key; make one with pot data key")
    if _open_to_others(path):
        warnings.warn(f"{path}: others may read this key; chmod 600 {path}", RuntimeWarning, stacklevel=2)
    return HidingKey(_MARKS[mark], bytes.fromhex(digits))


def _open_to_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError as error:
        raise EnvironmentFailure(f"{path}: cannot be read: {error.strerror or error}") from None
