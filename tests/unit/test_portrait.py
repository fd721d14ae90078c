"""Portraits: one spelling for a set of keys, members are never answered with "no", each refusal has its own code."""

from __future__ import annotations

import json
from fractions import Fraction
from math import ceil, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pot.canonical import canonical_bytes
from pot.commitments.dataset import DatasetCommitment, Shard, commit_digests
from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.setree_arrays import from_bytes
from pot.commitments.setree_verify import key_of
from pot.data.portrait import bits_for, make_portrait
from pot.data.portrait_verify import (
    Portrait,
    bucket_challenge,
    check_portrait,
    check_portrait_buckets,
    check_portrait_header,
    entries_of,
    rice_for,
)
from pot.errors import LimitExceeded, Malformed, UsageError


def committed(count: int, name: bytes = b"record") -> tuple[DatasetCommitment, np.ndarray]:
    digests = [record_digest(name + b" %d" % number) for number in range(count)]
    shard = Shard(name="s", bytes="1", records=str(count), sha256="0" * 64, blake3="0" * 64)
    commitment = commit_digests("training", "text/1", b"".join(digests), 1, [shard])
    return commitment, from_bytes(b"".join(key_of(digest) for digest in digests))


COMMITMENT, KEYS = committed(500)
PORTRAIT = make_portrait(COMMITMENT, KEYS, 1e-3)


def naive_bytes(commitment: DatasetCommitment, keys: np.ndarray, bits: int, rice: int) -> bytes:
    """The format read aloud: text of zeros and ones."""
    entries = sorted({int(key) >> (64 - bits) for key in keys})
    gaps = [entry - before - 1 for before, entry in zip([-1, *entries], entries, strict=False)]
    remainders = "".join(format(gap & ((1 << rice) - 1), f"0{rice}b") for gap in gaps) if rice else ""
    text = remainders + "".join("0" * (gap >> rice) + "1" for gap in gaps)
    text += "0" * (-len(text) % 8)
    header = {
        "version": "pot/portrait/v1", "commitment_sha256": commitment.sha256(), "view": commitment.view,
        "set_root_blake3": commitment.set.root_blake3, "set_count": commitment.set.count,
        "bits": str(bits), "rice": str(rice), "entries": str(len(entries)),
    }  # fmt: skip
    return canonical_bytes(header) + b"\n" + int(text, 2).to_bytes(len(text) // 8, "big")


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 200])
@pytest.mark.parametrize("rate", [0.9, 0.5, 0.01, 1e-6, 1e-9, 1e-15, 1e-30])
def test_the_bytes_are_those_of_the_format_and_read_back(count: int, rate: float) -> None:
    commitment, keys = committed(count)
    portrait = make_portrait(commitment, keys[::-1], rate)
    bits = min(64, ceil(log2(Fraction(count) / Fraction(rate))))
    data = portrait.to_bytes()
    assert data == naive_bytes(commitment, keys, bits, int(portrait.header.rice))
    read = Portrait.from_bytes(data)
    assert read.header == portrait.header
    assert np.array_equal(read.entries, portrait.entries)
    assert np.array_equal(read.entries, entries_of(keys, bits))
    assert read.to_bytes() == data
    check_portrait(read, commitment, keys)


@given(st.integers(1, 63).flatmap(lambda bits: st.tuples(st.just(bits), st.sets(st.integers(0, 2**bits - 1)))))
def test_any_entries_have_one_spelling(case: tuple[int, set[int]]) -> None:
    from pot.data.portrait import _encode
    from pot.data.portrait_verify import _decode

    bits, entries = case
    if not entries:
        return
    array = np.array(sorted(entries), np.uint64)
    for rice in {rice_for(len(entries), bits), 0 if bits < 12 else bits - 1, bits - 1}:
        assert _decode(_encode(array, rice), len(array), bits, rice, "x").tolist() == sorted(entries)


def test_bits_are_the_rounded_up_logarithm_and_exact() -> None:
    assert bits_for(1, 0.5) == 1
    assert bits_for(3, 0.5) == 3
    assert bits_for(4, 0.5) == 3
    assert bits_for(5, 0.5) == 4
    assert bits_for(2**40, 2.0**-24) == 64
    assert bits_for(2**40, 2.0**-25) == 64
    assert bits_for(10_000_000, 1e-6) == 44
    for rate in (0, 1, -1e-6, 1.5, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            bits_for(5, rate)


@pytest.mark.parametrize("bits", [1, 4, 20, 44, 64])
@pytest.mark.parametrize("count", [1, 3, 100, 10**7, 2**48])
def test_rice_is_the_least_that_its_rule_allows(bits: int, count: int) -> None:
    rice = rice_for(count, bits)
    assert 25 * 2**rice * count >= 12 * 2**bits
    assert rice == 0 or 25 * 2 ** (rice - 1) * count < 12 * 2**bits
    assert rice < bits


def test_rice_gives_the_shortest_stream_of_the_fixed_widths() -> None:
    from pot.data.portrait import _encode

    keys = np.unique(np.random.default_rng(3).integers(0, 2**64, 20_000, dtype=np.uint64))
    for bits in (24, 31, 40):
        entries, best = entries_of(keys, bits), rice_for(len(keys), bits)
        lengths = {rice: len(_encode(entries, rice)) for rice in range(best - 2, best + 3)}
        assert min(lengths, key=lengths.__getitem__) == best


def test_members_are_never_answered_with_no_and_strangers_rarely_with_maybe() -> None:
    assert PORTRAIT.may_contain_keys(KEYS).all()
    assert all(PORTRAIT.may_contain(int(key).to_bytes(8, "big")) for key in KEYS[:20])
    strangers = np.random.default_rng(1).integers(0, 2**64, 200_000, dtype=np.uint64)
    maybe = PORTRAIT.may_contain_keys(strangers)
    assert 0 < maybe.mean() < 1.3e-3
    outside = strangers[~maybe][0]
    assert not PORTRAIT.may_contain(int(outside).to_bytes(8, "big"))
    with pytest.raises(UsageError, match="8 bytes, not 32"):
        PORTRAIT.may_contain(bytes(32))


def test_keys_that_are_not_the_commitments_make_no_portrait() -> None:
    with pytest.raises(UsageError, match="499 distinct keys, the commitment's set has 500"):
        make_portrait(COMMITMENT, KEYS[:-1], 1e-3)
    with pytest.raises(UsageError, match="do not belong to the commitment"):
        make_portrait(COMMITMENT, committed(500, b"other")[1], 1e-3)


def changed(**fields: str) -> bytes:
    header = json.loads(PORTRAIT.header.to_bytes()) | fields
    return canonical_bytes(header) + b"\n" + PORTRAIT.stream


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"version": "pot/portrait/v2"}, "is pot/portrait/v2"),
        ({"bits": "0"}, "0 bits of each key say nothing"),
        ({"bits": "8"}, "8 bits of each key say nothing"),
        ({"bits": "65"}, "65 bits of each key"),
        ({"bits": "9999999999999999999"}, "bits of each key"),
        ({"bits": "019"}, "bits"),
        ({"bits": "20"}, "rice is"),
        ({"rice": "0"}, "rice is 0, expected"),
        ({"set_count": "0"}, "out of range"),
        ({"set_count": str(2**48 + 1)}, "out of range"),
        ({"entries": "0"}, "0 entries cannot come from 500"),
        ({"entries": "501"}, "501 entries cannot come from 500"),
        ({"entries": "499"}, "spells"),
        ({"set_count": str(2**48), "bits": "64", "rice": "15", "entries": str(2**48)}, "more than the limit"),
        ({"set_count": "100000000", "bits": "36", "rice": "9", "entries": "100000000"}, "expected 125000000 to"),
        ({"more": "1"}, "more"),
    ],
)
def test_headers_that_do_not_add_up_are_refused(fields: dict[str, str], sentence: str) -> None:
    with pytest.raises(Malformed, match=sentence):
        Portrait.from_bytes(changed(**fields))


def spelled(text: str, **fields: Any) -> bytes:
    header = json.loads(PORTRAIT.header.to_bytes()) | {name: str(value) for name, value in fields.items()}
    return canonical_bytes(header) + b"\n" + int(text, 2).to_bytes(len(text) // 8, "big")


def test_other_spellings_are_refused() -> None:
    """Three keys, three bits each, remainders of one bit."""
    numbers = {"set_count": 3, "bits": 3, "rice": 1, "entries": 3}
    assert rice_for(3, 3) == 1
    good = "001" + "1" + "01" + "1" + "0"
    assert Portrait.from_bytes(spelled(good, **numbers)).entries.tolist() == [0, 3, 5]
    for bad, sentence in {
        "001" + "1" + "01" + "1" + "1": "spells 4 entries, expected 3",  # padding that is not zero
        "001" + "1" + "01" + "0" + "0": "spells 2 entries, expected 3",
        good + "00000000": "bytes of entries|bytes follow",  # trailing bytes
        "001" + "000001" + "1" + "1" + "00000": "an entry has more than 3 bits",
        "111" + "01" + "01" + "1": "an entry has more than 3 bits",
    }.items():
        with pytest.raises(Malformed, match=sentence):
            Portrait.from_bytes(spelled(bad, **numbers))
    assert Portrait.from_bytes(spelled("111" + "1" + "1" + "1" + "00", **numbers)).entries.tolist() == [1, 3, 5]


def test_sums_beyond_64_bits_are_refused_before_they_wrap() -> None:
    numbers = {"set_count": 2, "bits": 64, "rice": rice_for(2, 64), "entries": 2}
    rice = int(numbers["rice"])
    largest = "1" * rice
    for text in (largest * 2 + "01001", "0" * rice + largest + "0010001", "0" * 2 * rice + "00001" + "1"):
        text += "0" * (-len(text) % 8)
        with pytest.raises(Malformed, match="more than 64 bits"):
            Portrait.from_bytes(spelled(text, **numbers))
    text = largest * 2 + "0101"
    text += "0" * (-len(text) % 8)
    assert Portrait.from_bytes(spelled(text, **numbers)).entries.tolist() == [2**63 - 1, 2**64 - 1]


def test_files_without_header_or_too_large_are_refused() -> None:
    data = PORTRAIT.to_bytes()
    for bad in (b"", b"\n", b"{}\n", b" " * 2000, data.replace(b"\n", b"", 1), b" " + data, b"\xff" * 40 + b"\n"):
        with pytest.raises(Malformed):
            Portrait.from_bytes(bad)
    with pytest.raises(LimitExceeded, match="500 entries, more than the limit of 499"):
        Portrait.from_bytes(data, max_entries=499)
    with pytest.raises(LimitExceeded, match=f"more than the limit of {len(data) - 1}"):
        Portrait.from_bytes(data, limit=len(data) - 1)


@given(st.data())
def test_a_bent_portrait_is_refused_or_another_portrait(data: st.DataObject) -> None:
    """No second spelling: whatever reads has exactly the bytes that its entries give, and other bytes other entries."""
    bent = bytearray(PORTRAIT.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(8 * (len(bent) - len(PORTRAIT.stream)), 8 * len(bent) - 1))
        bent[bit // 8] ^= 1 << bit % 8
    if bytes(bent) == PORTRAIT.to_bytes():
        return
    try:
        read = Portrait.from_bytes(bytes(bent))
    except Malformed:
        return
    assert not np.array_equal(read.entries, PORTRAIT.entries)
    assert (read.entries[1:] > read.entries[:-1]).all()
    with pytest.raises(ProofRefused, match="entries"):
        check_portrait(read, COMMITMENT, KEYS)


@given(st.binary(max_size=200))
def test_noise_is_refused_with_our_error_only(noise: bytes) -> None:
    header = PORTRAIT.header.to_bytes() + b"\n"
    for data in (noise, header + noise, header + PORTRAIT.stream + noise):
        try:
            read = Portrait.from_bytes(data)
        except Malformed:
            continue
        assert read.to_bytes() == data


def code_of(check: Any, *arguments: Any) -> str:
    with pytest.raises(ProofRefused) as caught:
        check(*arguments)
    return caught.value.code


def test_each_lie_has_its_code() -> None:
    other, other_keys = committed(500, b"other")
    tree, asked = SetTree.of_keys(KEYS), bucket_challenge(20)
    proof = tree.prove_absent(asked)
    check_portrait_buckets(PORTRAIT, COMMITMENT, asked, proof)
    assert code_of(check_portrait, PORTRAIT, other, other_keys) == "portrait-commitment"
    assert code_of(check_portrait_header, PORTRAIT, other) == "portrait-commitment"
    assert code_of(check_portrait_buckets, PORTRAIT, other, asked, proof) == "portrait-commitment"
    assert code_of(check_portrait_buckets, PORTRAIT, COMMITMENT, asked, proof[:-1]) == "portrait-proof"
    assert code_of(check_portrait_buckets, PORTRAIT, COMMITMENT, [], proof) == "portrait-proof"
    foreign = SetTree.of_keys(other_keys).prove_absent(asked)
    assert code_of(check_portrait_buckets, PORTRAIT, COMMITMENT, asked, foreign) == "portrait-proof"
    assert code_of(check_portrait, PORTRAIT, COMMITMENT, other_keys) == "portrait-set"
    assert code_of(check_portrait, PORTRAIT, COMMITMENT, KEYS[:-1]) == "portrait-set"
    for field in ("view", "set_count", "set_root_blake3", "commitment_sha256"):
        value = {"view": "json/1", "set_count": "501"}.get(field, "1" * 64)
        bent = Portrait(PORTRAIT.header.model_copy(update={field: value}), PORTRAIT.entries, PORTRAIT.stream)
        assert code_of(check_portrait_header, bent, COMMITMENT) == "portrait-commitment"


def test_every_bucket_opened_is_the_whole_portrait() -> None:
    tree = SetTree.of_keys(KEYS)
    every = [(bucket << (64 - tree.depth) | 12345).to_bytes(8, "big") for bucket in range(1 << tree.depth)]
    check_portrait_buckets(PORTRAIT, COMMITMENT, every, tree.prove_absent(every))
