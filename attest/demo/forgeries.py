"""Seven forgeries of a release bundle, each as its forger would do it; verification must refuse every one.

Where the forger is the developer, the certificate is signed again with the developer's own key, so that the signature
is good and only the check that the forgery is about can refuse it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest.bundle import CLAIMS_FILE, OBJECTS_FOLDER, WEIGHTS_FILE, SigstoreBundle, join_lines, split_lines
from attest.envelope import sign_envelope
from attest.predicate import TRAINING_CERTIFICATE
from attest.trust.keys import PrivateKey, generate
from pot.canonical import canonical_bytes, parse, sha256_hex, write_file
from pot.errors import UsageError
from pot.recording.transcript import previous_digest

__all__ = [
    "FileForgery",
    "another_signer",
    "config_byte",
    "copy_release",
    "file_forgeries",
    "relink",
    "removed_step_proof",
    "swapped_transcript_line",
    "weight_bit",
    "x2_sold_as_x1",
]


@dataclass(frozen=True)
class FileForgery:
    """A forgery made on a copy of the release bundle: what the forger does, and the function that does it."""

    name: str
    what: str
    bend: Callable[[Path], None]


def file_forgeries(key: PrivateKey, x2_commitment: Path, x2_digests: Path) -> list[FileForgery]:
    """The six forgeries that only change files of the bundle; the seventh, a forged segment, needs a run."""
    return [
        FileForgery("weight-bit", "one bit of one weight is flipped", weight_bit),
        FileForgery("config-byte", "one digit of the pre-committed configuration is changed", config_byte),
        FileForgery(
            "transcript-line",
            "two neighbouring lines of the transcript are swapped, all digests adjusted, signed again",
            lambda folder: swapped_transcript_line(folder, key),
        ),
        FileForgery("step-proof", "one step proof is removed", removed_step_proof),
        FileForgery("signer", "somebody else signs the same certificate", another_signer),
        FileForgery(
            "x2-as-x1",
            "X2 is put in the place of X1 in the exclusion claim, signed again",
            lambda folder: x2_sold_as_x1(folder, key, x2_commitment, x2_digests),
        ),
    ]


def weight_bit(folder: Path) -> None:
    """Flip the lowest bit of the last byte of the weights."""
    path = folder / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    write_file(path, bytes(data))


def config_byte(folder: Path) -> None:
    """Change one digit of `checkpoint_every` in the pre-commitment, where it lies."""
    certificate = _certificate(folder)
    path = folder / OBJECTS_FOLDER / certificate["predicate"]["run"]["precommit_sha256"]
    document = parse(path.read_bytes(), what=str(path))
    document["checkpoint_every"] = str(int(document["checkpoint_every"]) + 1)
    write_file(path, canonical_bytes(document))


def swapped_transcript_line(folder: Path, key: PrivateKey) -> None:
    """Swap the first two step events and sign the certificate again over the new transcript."""
    certificate = _certificate(folder)
    old = certificate["predicate"]["run"]["transcript_sha256"]
    lines = (folder / OBJECTS_FOLDER / old).read_bytes().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if b'"type":"step"' in line)
    lines[first], lines[first + 1] = lines[first + 1], lines[first]
    certificate["predicate"]["run"]["transcript_sha256"] = _add(folder, b"".join(lines))
    _sign_again(folder, certificate, key)


def removed_step_proof(folder: Path) -> None:
    """Delete the object of the first step proof that the certificate refers to."""
    claim = _claim(_certificate(folder), "steps-proven")
    (folder / OBJECTS_FOLDER / claim["steps"][0]["proof_sha256"]).unlink()


def another_signer(folder: Path) -> None:
    """Sign the very same payload with a key that no policy knows."""
    _sign_again(folder, _certificate(folder), generate())


def x2_sold_as_x1(folder: Path, key: PrivateKey, commitment: Path, digests: Path) -> None:
    """Replace X1's commitment and digests by X2's in the exclusion claim, keep the non-membership proof, sign again."""
    certificate = _certificate(folder)
    claim = _claim(certificate, "dataset-exclusion")
    claim["exclusion_sha256"] = _add(folder, commitment.read_bytes())
    claim["digests_sha256"] = _add(folder, digests.read_bytes())
    _sign_again(folder, certificate, key)


def relink(lines: list[dict[str, Any]]) -> bytes:
    """A transcript of these events with index and previous digest set right: what a forger's tool does."""
    out = b""
    previous = "0" * 64
    for index, event in enumerate(lines):
        line = canonical_bytes({**event, "index": str(index), "previous": previous})
        previous = previous_digest(line)
        out += line + b"\n"
    return out


def copy_release(release: Path, to: Path) -> Path:
    """A copy of a release bundle to bend."""
    shutil.copytree(release, to)
    return to


def _lines(folder: Path) -> list[bytes]:
    return split_lines((folder / CLAIMS_FILE).read_bytes())


def _payload(line: bytes) -> bytes:
    return SigstoreBundle.from_line(line, what=CLAIMS_FILE).dsse_envelope.payload_bytes()


def _is_ours(payload: dict[str, Any], folder: Path) -> bool:
    weights = sha256_hex((folder / WEIGHTS_FILE).read_bytes())
    return payload["predicateType"] == TRAINING_CERTIFICATE and any(
        file["sha256"] == weights for file in payload["predicate"]["model"]["files"]
    )


def _certificate(folder: Path) -> dict[str, Any]:
    for line in _lines(folder):
        statement: dict[str, Any] = parse(_payload(line), what=CLAIMS_FILE)
        if _is_ours(statement, folder):
            return statement
    raise UsageError(f"{folder}: no certificate of these weights; forge a copy of an honest release")


def _claim(certificate: dict[str, Any], kind: str) -> dict[str, Any]:
    claim: dict[str, Any] = next(claim for claim in certificate["predicate"]["claims"] if claim["type"] == kind)
    return claim


def _add(folder: Path, data: bytes) -> str:
    sha256 = sha256_hex(data)
    write_file(folder / OBJECTS_FOLDER / sha256, data)
    return sha256


def _sign_again(folder: Path, certificate: dict[str, Any], key: PrivateKey) -> None:
    """Put the bent certificate in the place of the honest one, with a good signature by `key`."""
    envelope = sign_envelope(canonical_bytes(certificate), key)
    line = canonical_bytes(
        SigstoreBundle.make(envelope, key.public.hint()).model_dump(mode="json", by_alias=True, exclude_none=True)
    )
    kept = [old for old in _lines(folder) if not _is_ours(parse(_payload(old), what=CLAIMS_FILE), folder)]
    write_file(folder / CLAIMS_FILE, join_lines([line, *kept]))
