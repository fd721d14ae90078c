"""Seeds and their labelled expansion."""

from __future__ import annotations

import pytest
from blake3 import blake3

from pot.commitments.seed import expand, integer, run_seed
from pot.errors import Malformed, UsageError

PRECOMMIT = "ab" * 32
NONCE = bytes(range(32))


def test_seed_is_blake3_key_derivation_over_length_prefixed_parts() -> None:
    hasher = blake3(derive_key_context="pot/seed/v1")
    for part in (bytes.fromhex(PRECOMMIT), NONCE):
        hasher.update(len(part).to_bytes(8, "little") + part)
    assert run_seed(PRECOMMIT, NONCE) == hasher.digest()


def test_each_input_changes_the_seed() -> None:
    seeds = {run_seed(PRECOMMIT, NONCE), run_seed("ac" * 32, NONCE), run_seed(PRECOMMIT, NONCE[::-1])}
    assert len(seeds) == 3


@pytest.mark.parametrize("digest", ["", "ab", "AB" * 32, "zz" * 32, "ab" * 32 + "\n", " " + "ab" * 32])
def test_a_digest_that_is_not_64_lowercase_hex_digits_is_refused(digest: str) -> None:
    with pytest.raises(Malformed):
        run_seed(digest, NONCE)


@pytest.mark.parametrize("nonce", [b"", NONCE[:-1], NONCE + b"\0"])
def test_a_nonce_of_another_length_is_refused(nonce: bytes) -> None:
    with pytest.raises(Malformed):
        run_seed(PRECOMMIT, nonce)


def test_labels_are_independent_and_integers_fit_their_bits() -> None:
    seed = run_seed(PRECOMMIT, NONCE)
    assert expand(seed, "init") != expand(seed, "order")
    assert integer(seed, "init", 256) == int.from_bytes(expand(seed, "init"), "little")
    for bits in (1, 8, 31, 63, 255):
        assert integer(seed, "init", bits) == integer(seed, "init", 256) % 2**bits


@pytest.mark.parametrize("bits", [0, -1, 257])
def test_impossible_widths_are_refused(bits: int) -> None:
    with pytest.raises(UsageError):
        integer(bytes(32), "init", bits)


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError):
        expand(bytes(31), "init")
