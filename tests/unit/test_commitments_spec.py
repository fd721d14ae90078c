"""The worked example of `specs/commitments.md` is computed again, number by number, and must stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from blake3 import blake3

from pot.canonical import derive
from pot.commitments.hashing import BLAKE3, record_digest
from pot.commitments.merkle import inclusion_path, merkle_root
from pot.commitments.order import batch_records, epoch_permutation
from pot.commitments.seed import expand, integer, run_seed
from pot.commitments.setree_verify import bucket_of, key_of
from pot.commitments.state import FIRST_STATE, TensorEntry, json_digest, state_digest, tensors_digest
from pot.data.commit import Committed, commit
from pot.data.exclude import exclude
from pot.data.exclude_verify import Exclusion

SPEC = Path(__file__).parents[2] / "specs" / "commitments.md"


def block(name: str) -> str:
    """The fenced block that follows the line `<!-- name -->`."""
    found = re.search(rf"<!-- {name} -->\n```[a-z]*\n(.*?)```", SPEC.read_text(), re.DOTALL)
    assert found is not None, name
    return found.group(1)


def rows(name: str) -> list[list[str]]:
    return [line.split() for line in block(name).splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train.jsonl", "x.jsonl"):
        (tmp_path / name).write_text(block(name))
    return tmp_path


@pytest.fixture
def training(folder: Path) -> Committed:
    return commit([folder / "train.jsonl"], "json/1")


@pytest.fixture
def exclusion(folder: Path) -> Committed:
    return commit([folder / "x.jsonl"], "json/1", "exclusion")


def test_the_documents(training: Committed, exclusion: Committed) -> None:
    assert block("train.json") == training.commitment.to_bytes().decode() + "\n"
    assert block("x.json") == exclusion.commitment.to_bytes().decode() + "\n"
    assert rows("ids") == [["train.json", training.commitment.sha256()], ["x.json", exclusion.commitment.sha256()]]


def test_the_digests_and_buckets(training: Committed) -> None:
    digests = [record_digest(b'{"id":%d}' % number) for number in range(8)]
    assert b"".join(digests) == bytes(training.listing)
    depth = int(training.commitment.set.depth)
    assert rows("digests") == [
        [str(number), digest.hex(), key_of(digest).hex(), str(bucket_of(key_of(digest), depth))]
        for number, digest in enumerate(digests)
    ]


def test_the_ordered_tree(training: Committed) -> None:
    digests = [bytes(training.listing)[start : start + 32] for start in range(0, 256, 32)]
    assert rows("inclusion") == [
        ["leaf", BLAKE3.leaf(digests[5]).hex()],
        *[["path", sibling.hex()] for sibling in inclusion_path(digests, 5, BLAKE3)],
        ["root", merkle_root(digests, BLAKE3).hex()],
    ]


def test_the_exclusion_file(training: Committed, exclusion: Committed) -> None:
    result = exclude(training, exclusion)
    assert isinstance(result, Exclusion)
    header, proof = block("exclusion").split("\n", 1)
    assert header == result.header.to_bytes().decode()
    pieces = [line.split("#")[0].strip() for line in proof.splitlines()]
    assert bytes.fromhex("".join(pieces)) == result.proof


def test_seed_order_and_batch() -> None:
    seed = run_seed("11" * 32, bytes.fromhex("22" * 32))
    epoch, position, records = batch_records(seed, 8, 3, 4)
    assert rows("seed") == [
        ["seed", seed.hex()],
        ["expand", expand(seed, "init").hex()],
        ["integer", str(integer(seed, "init"))],
        ["epoch-0", *map(str, epoch_permutation(seed, 8, 0).slice(0, 8))],
        ["epoch-1", *map(str, epoch_permutation(seed, 8, 1).slice(0, 8))],
        ["step-4", str(epoch), str(position), *map(str, records)],
    ]


def test_state() -> None:
    model = tensors_digest("model", [TensorEntry("w", "F32", (1, 2), bytes.fromhex("0000803f00000040"))])
    cursor = json_digest("cursor", {"epoch": "0", "position": "0"})
    assert rows("state") == [
        ["model", model],
        ["cursor", cursor],
        ["state", state_digest({"model": model, "cursor": cursor}, 0, "33" * 32, FIRST_STATE)],
    ]


def test_contexts_are_what_the_spec_lists() -> None:
    listed = set(re.findall(r'"(pot/[a-z-]+/v1)"', SPEC.read_text()))
    for context in ("pot/leaf/v1", "pot/node/v1", "pot/set-bucket/v1", "pot/set-node/v1", "pot/set-root/v1"):
        assert context in listed
        assert derive(context) == blake3(b"", derive_key_context=context).digest()
