"""A62: a dictionary tried on leaves. Who can guess records (names, numbers, short answers) hashes the guesses and looks
for them in what was published. Hidden leaves (`pot.commitments.hiding`) are what stops it: without them it works.
"""

from __future__ import annotations

import pytest
from hidden_data import Listed, listed, plain_digests

from pot.canonical import derive
from pot.commitments.hashing import BLAKE3
from pot.commitments.hiding import blinded, new_key
from pot.commitments.merkle import MerkleTree
from pot.commitments.setree import SetTree
from pot.commitments.setree_verify import key_of, open_buckets
from pot.commitments.vrf import output

PINS = [f"{number:04d}" for number in range(3000)]  # the dictionary
SECRETS = ["0007", "1234", "1999", "2718"]
FILLER = [f"long and not to be guessed: {derive('filler', bytes([number])).hex()}" for number in range(40)]


def seen(data: Listed) -> set[bytes]:
    """What proofs give away without the listing: the keys of all buckets that non-membership proofs open."""
    root, depth, count = data.commitment.set.root_blake3, int(data.commitment.set.depth), int(data.commitment.set.count)
    tree = SetTree.of_keys(data.keys)
    asked = [derive("asked", bytes([number]))[:8] for number in range(200)]
    proof = tree.prove_absent(asked)
    opened = open_buckets(bytes.fromhex(root), depth, count, asked, proof)
    return {keys[at : at + 8] for keys in opened.values() for at in range(0, len(keys), 8)}


def recovered(data: Listed, guess: list[bytes]) -> set[str]:
    """The dictionary's words whose guessed digests are among what was seen."""
    keys = seen(data)
    return {word for word, digest in zip(PINS, guess, strict=True) if key_of(digest) in keys}


def test_plain_leaves_give_guessable_records_away() -> None:
    guesses = [row.tobytes() for row in plain_digests(PINS)]
    assert recovered(listed(SECRETS + FILLER), guesses) == set(SECRETS)
    # even from the roots alone, where the rest of the data is known
    data = listed([*FILLER, "1234"])
    known = [row.tobytes() for row in plain_digests(FILLER)]
    found = [
        word
        for word, guess in zip(PINS[1200:1300], guesses[1200:1300], strict=True)
        if MerkleTree([*known, guess], BLAKE3).root.hex() == data.commitment.records.root_blake3
    ]
    assert found == ["1234"]


@pytest.mark.parametrize("method", ["blake3-keyed/1", "ecvrf/1"])
def test_hidden_leaves_do_not(method: str) -> None:
    """With plain digests, with what the commitment publishes as a key, with a key of one's own: nothing is found."""
    key, own = new_key(method), new_key("blake3-keyed/1")
    data = listed(SECRETS + FILLER, key=key)
    published = bytes.fromhex(key.hiding.id)
    assert len(seen(data)) == len(SECRETS + FILLER)  # everything was opened
    for tried in (None, published, derive("pot/hiding-leaf/v1", published), own.leaf_key):
        assert recovered(data, [row.tobytes() for row in plain_digests(PINS, tried)]) == set()


def test_whoever_has_the_key_can_still_try() -> None:
    """The limit: the key's holder, and everybody after a leak."""
    keyed, vrf = new_key("blake3-keyed/1"), new_key("ecvrf/1")
    guesses = [row.tobytes() for row in plain_digests(PINS, keyed.leaf_key)]
    assert recovered(listed(SECRETS + FILLER, key=keyed), guesses) == set(SECRETS)
    data = listed(SECRETS[:2] + FILLER, key=vrf)
    blind = blinded(output(vrf.secret, plain_digests(["1234"])[0].tobytes()))
    assert key_of(blind) in seen(data)
