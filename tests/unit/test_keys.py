"""Signing keys: files, algorithms, refusals."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attest.trust.keys import ALGORITHMS, PrivateKey, PublicKey, SignatureRefused, generate
from pot.errors import LimitExceeded, Malformed, UsageError


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_signed_verifies_after_a_round_trip_through_files(algorithm: str, tmp_path: Path) -> None:
    key = generate(algorithm)  # type: ignore[arg-type]
    public = key.save(tmp_path / "key.pem")
    signature = PrivateKey.load(tmp_path / "key.pem").sign(b"message")
    loaded = PublicKey.load(public)
    loaded.verify(signature, b"message")
    assert loaded.algorithm == algorithm
    assert loaded.hint() == key.public.hint()
    for bad, message in (
        (signature, b"massage"),
        (signature[:-1], b"message"),
        (b"", b"message"),
        (b"\x00" * 64, b"message"),
    ):
        with pytest.raises(SignatureRefused):
            loaded.verify(bad, message)


def test_a_signature_of_one_algorithm_is_none_of_the_other() -> None:
    one, other = generate("ed25519"), generate("ecdsa-p256")
    with pytest.raises(SignatureRefused):
        other.public.verify(one.sign(b"x"), b"x")
    with pytest.raises(SignatureRefused):
        one.public.verify(other.sign(b"x"), b"x")


def test_the_private_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "key.pem"
    generate().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        generate().save(path)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(UsageError):
        generate().save(tmp_path / "link")
    assert path.read_bytes() == before
    assert not (tmp_path / "target").exists()


def pem_of(key: object, password: bytes | None = None) -> bytes:
    scheme = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, scheme)  # type: ignore[attr-defined, no-any-return]


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    for pem in (
        pem_of(rsa.generate_private_key(65537, 2048)),
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(ec.generate_private_key(ec.SECP256K1())),
        pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret"),
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"\xff\x00" * 100,
    ):
        path.write_bytes(pem)
        with pytest.raises(Malformed):
            PrivateKey.load(path)
    path.write_bytes(b"x" * 100_000)
    with pytest.raises(LimitExceeded):
        PrivateKey.load(path)


def test_public_keys_are_exactly_one_public_key(tmp_path: Path) -> None:
    pem = generate().public.pem()
    for data in (b"", pem + pem, generate().pem(), pem[:-30], pem.replace(b"PUBLIC", b"CERTIFICATE")):
        with pytest.raises(Malformed):
            PublicKey.from_pem(data)
    with pytest.raises(UsageError):
        PublicKey.load(tmp_path / "absent.pem")
    with pytest.raises(UsageError):
        generate("rsa")  # type: ignore[arg-type]
