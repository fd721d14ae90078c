"""Long-lived signing keys: Ed25519 and ECDSA P-256 (with SHA-256, DER signatures).

Files: PKCS #8 PEM for private keys (mode 0600, never overwritten), SubjectPublicKeyInfo PEM for public keys.
The algorithm belongs to the key that the verifier trusts; nothing in a signed document can choose it.

Shows: the holder of the private key signed these bytes.
Does not show: who that is; a policy binds public keys to names and roles.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final, Literal

from pot.canonical import read_file
from pot.errors import EnvironmentFailure, Malformed, Refused, UsageError

__all__ = ["ALGORITHMS", "MAX_KEY_BYTES", "Algorithm", "PrivateKey", "PublicKey", "SignatureRefused", "generate"]

Algorithm = Literal["ed25519", "ecdsa-p256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("ed25519", "ecdsa-p256")
MAX_KEY_BYTES: Final = 8 << 10  # a PEM file of either kind is below 300 bytes


class SignatureRefused(Refused):
    """A signature does not belong to this key and these bytes."""


class PublicKey:
    """A public key of one of the two algorithms."""

    def __init__(self, key: Any) -> None:
        """Wrap a key of `cryptography`. Raises `Malformed` for any other algorithm or curve."""
        self.algorithm: Algorithm = _algorithm_of(key, private=False)
        self._key = key

    @classmethod
    def from_pem(cls, pem: bytes, *, what: str = "public key") -> PublicKey:
        """Read one SubjectPublicKeyInfo PEM. Raises `Malformed`."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        if len(pem) > MAX_KEY_BYTES or pem.count(b"-----BEGIN") != 1:
            raise Malformed(f"{what}: expected one PEM public key; pot keygen writes one beside the private key")
        try:
            return cls(load_pem_public_key(pem))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Malformed(f"{what}: not a PEM public key; pot keygen writes one beside the private key") from None

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """Read a public key file. Raises `UsageError`, `Malformed`, `EnvironmentFailure`."""
        return cls.from_pem(read_file(path, limit=MAX_KEY_BYTES), what=str(path))

    def pem(self) -> bytes:
        """The key as SubjectPublicKeyInfo PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return bytes(self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def hint(self) -> str:
        """SHA-256 of the DER SubjectPublicKeyInfo, hex: the key's name in `verificationMaterial.publicKey.hint`."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return hashlib.sha256(self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature. Raises `SignatureRefused`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            if self.algorithm == "ed25519":
                self._key.verify(signature, message)
            else:
                self._key.verify(signature, message, ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            raise SignatureRefused(f"the signature is not by key {self.hint()[:16]} over these bytes") from None


class PrivateKey:
    """A private key of one of the two algorithms."""

    def __init__(self, key: Any) -> None:
        """Wrap a key of `cryptography`. Raises `Malformed` for any other algorithm or curve."""
        self.algorithm: Algorithm = _algorithm_of(key, private=True)
        self._key = key

    @classmethod
    def load(cls, path: Path) -> PrivateKey:
        """Read a PKCS #8 PEM file. Raises `UsageError`, `Malformed`, `EnvironmentFailure`."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        pem = read_file(path, limit=MAX_KEY_BYTES)
        try:
            return cls(load_pem_private_key(pem, password=None))
        except TypeError:
            raise Malformed(f"{path}: the private key is encrypted; decrypt it first") from None
        except (ValueError, UnsupportedAlgorithm):
            raise Malformed(f"{path}: not a PEM private key; make one with pot keygen") from None

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self._key.public_key())

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: 64 bytes for Ed25519, DER for ECDSA."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        if self.algorithm == "ed25519":
            return bytes(self._key.sign(message))
        return bytes(self._key.sign(message, ECDSA(SHA256())))

    def pem(self) -> bytes:
        """The key as unencrypted PKCS #8 PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return bytes(self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def save(self, path: Path) -> Path:
        """Write the private key (mode 0600) and the public key beside it as `<path>.pub`; neither may exist.

        Returns the path of the public key. Raises `UsageError`, `EnvironmentFailure`.
        """
        if not path.name:
            raise UsageError(f"{path}: is a folder; name a file for the key")
        public = path.with_name(path.name + ".pub")
        for target in (path, public):
            if target.is_symlink() or target.exists():
                raise UsageError(f"{target}: exists already; a key is never overwritten, choose another name")
        made: list[Path] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for target, data, mode in ((path, self.pem(), 0o600), (public, self.public.pem(), 0o644)):
                # O_EXCL: also a file that appears meanwhile, or a link that somebody planted, is not written through
                handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                made.append(target)
                with os.fdopen(handle, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
        except OSError as error:
            for target in made:  # half a key is none
                target.unlink(missing_ok=True)
            raise EnvironmentFailure(f"{path}: the key cannot be written: {error.strerror or error}") from None
        return public


def generate(algorithm: Algorithm = "ed25519") -> PrivateKey:
    """A new key from the operating system's randomness. Raises `UsageError` for an unknown algorithm."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if algorithm == "ed25519":
        return PrivateKey(Ed25519PrivateKey.generate())
    if algorithm == "ecdsa-p256":
        return PrivateKey(generate_private_key(SECP256R1()))
    raise UsageError(f"key algorithm {algorithm!r} is not one of {', '.join(ALGORITHMS)}")


def _algorithm_of(key: Any, *, private: bool) -> Algorithm:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if isinstance(key, ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey):
        return "ed25519"
    elliptic = ec.EllipticCurvePrivateKey if private else ec.EllipticCurvePublicKey
    if isinstance(key, elliptic) and key.curve.name == "secp256r1":
        return "ecdsa-p256"
    raise Malformed(f"key: only {' and '.join(ALGORITHMS)} are accepted; make one with pot keygen")
