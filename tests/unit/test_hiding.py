"""Hiding keys: their files, their names, what they do to digests."""

from __future__ import annotations

import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hidden_data import listed

from pot.canonical import derive
from pot.commitments import vrf
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.hiding import Hiding, HidingKey, load_key, new_key
from pot.errors import LimitExceeded, Malformed, UsageError

METHODS = ["blake3-keyed/1", "ecvrf/1"]
DIGESTS = np.frombuffer(b"".join(blake3(b"%d" % number).digest() for number in range(5)), np.uint8).reshape(-1, 32)


@pytest.mark.parametrize("method", METHODS)
def test_a_key_comes_back_from_its_file(tmp_path: Path, method: str) -> None:
    key = new_key(method)
    key.save(tmp_path / "a" / "key")
    assert load_key(tmp_path / "a" / "key") == key
    assert stat.S_IMODE((tmp_path / "a" / "key").stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="never overwritten"):
        new_key(method).save(tmp_path / "a" / "key")
    assert load_key(tmp_path / "a" / "key") == key


@pytest.mark.parametrize("method", METHODS)
def test_a_secret_is_neither_shown_nor_published(method: str) -> None:
    key = new_key(method)
    assert key.secret.hex() not in repr(key)
    assert str(key.secret) not in repr(key)
    assert key.hiding.id != key.secret.hex()
    assert key.hiding == pickle.loads(pickle.dumps(key)).hiding
    assert key.hiding != new_key(method).hiding


def test_keyed_leaves_are_keyed_blake3() -> None:
    key = HidingKey("blake3-keyed/1", bytes(range(32)))
    assert key.leaf_key == derive("pot/hiding-leaf/v1", bytes(range(32)))
    assert key.hiding == Hiding(method="blake3-keyed/1", id=derive("pot/hiding-id/v1", bytes(range(32))).hex())
    with pytest.raises(UsageError, match="hashes records"):
        key.blind(DIGESTS)


def test_blinded_digests_are_the_vrfs() -> None:
    key = HidingKey("ecvrf/1", bytes(range(32)))
    assert key.leaf_key is None
    assert key.hiding.id == vrf.public_key(key.secret).hex()
    expected = [derive("pot/hiding-vrf/v1", vrf.output(key.secret, row.tobytes())) for row in DIGESTS]
    assert [row.tobytes() for row in key.blind(DIGESTS)] == expected
    assert key.blind(DIGESTS[:0]).shape == (0, 32)
    calls: list[tuple[int, int]] = []
    key.blind(np.repeat(DIGESTS, 60, axis=0), lambda done, total: calls.append((done, total)))
    assert calls == [(256, 300), (300, 300)]
    for wrong in (DIGESTS[:, :31], DIGESTS.astype(np.int64), DIGESTS.reshape(-1)):
        with pytest.raises(UsageError, match="rows of 32 bytes"):
            key.blind(wrong)


@pytest.mark.parametrize(
    "text",
    ["", "pot-hiding-blake3-v1", "pot-hiding-blake3-v2 " + "0" * 64, "pot-hiding-blake3-v1 " + "0" * 63,
     "pot-hiding-blake3-v1 " + "G" * 64, "pot-hiding-blake3-v1 " + "A" * 64, "pot-hiding-blake3-v1  " + "0" * 64,
     "pot-hiding-blake3-v1 " + "0" * 64 + "\n\n", "pot-hiding-blake3-v1 " + "0" * 64 + "\r\n", "\xff" * 20],
)  # fmt: skip
def test_what_is_no_key_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_bytes(text.encode("latin-1"))
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(Malformed, match="not a hiding key"):
        load_key(tmp_path / "key")
    (tmp_path / "key").write_bytes(b"0" * 1025)
    with pytest.raises(LimitExceeded):
        load_key(tmp_path / "key")


def test_a_key_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    key = new_key("blake3-keyed/1")
    key.save(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.warns(RuntimeWarning, match="others may read this key"):
        assert load_key(tmp_path / "key") == key


def test_unknown_methods_are_named() -> None:
    with pytest.raises(UsageError, match="not one of blake3-keyed/1, ecvrf/1"):
        new_key("salt/1")


def test_a_commitment_says_how_it_is_hidden() -> None:
    key = new_key("ecvrf/1")
    made = listed(["a", "b"], key=key).commitment
    assert made.hiding == key.hiding
    assert DatasetCommitment.from_bytes(made.to_bytes(), what="commitment") == made
    assert b"hiding" not in listed(["a", "b"]).commitment.to_bytes()
    bent = made.to_bytes().replace(b'"ecvrf/1"', b'"ecvrf/2"')
    with pytest.raises(Malformed, match="hiding"):
        DatasetCommitment.from_bytes(bent, what="commitment")
