"""What hashing records and building their ordered tree costs: beside raw BLAKE3, a Python loop, merkletools, pymerkle.

    benchmarks/data_hashing.py          the table: two minutes, 1 GB of memory
    benchmarks/data_hashing.py --small  a hundredth of it, to see that it runs

CPU seconds of one process that hashes on one core. A ratio of 0.1 is ten times as fast as the reference.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from blake3 import blake3
from table import Row, finish

from pot.commitments.batch import hash_spans, load_kernel
from pot.commitments.merkle import OrderedRoot, ordered_root
from pot.commitments.spans import Spans

__all__ = ["loop_rows", "mixed_rows", "rows", "tree_rows"]

RECORDS = 10_000_000
SHORTEST, LONGEST = 100, 4096
POOL = 1 << 28
BATCH = 50_000


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def batches(records: int, lengths: Callable[[np.random.Generator, int], np.ndarray]) -> Iterator[Spans]:
    """Spans of `BATCH` records each, from ever other places of one pool of random bytes."""
    pool = np.random.default_rng(1).integers(0, 256, POOL, np.uint8)
    for start in range(0, records, BATCH):
        rng = np.random.default_rng(start)
        offsets = np.zeros(min(BATCH, records - start) + 1, np.int64)
        np.cumsum(lengths(rng, len(offsets) - 1), out=offsets[1:])
        shift = int(rng.integers(0, POOL - int(offsets[-1])))
        yield Spans(pool[shift : shift + int(offsets[-1])], offsets)


def log_uniform(rng: np.random.Generator, count: int) -> np.ndarray:
    """Lengths between 100 bytes and 4 KB, as many between 100 and 200 as between 1,000 and 2,000; 1,077 on average."""
    return np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST), count)).astype(np.int64)


def uniform(rng: np.random.Generator, count: int) -> np.ndarray:
    """Lengths between 100 bytes and 4 KB; 2,098 on average."""
    return rng.integers(SHORTEST, LONGEST + 1, count)


def mixed_rows(records: int) -> list[Row]:
    """Records of mixed lengths, each hashed by itself, against one hash over the same bytes; batch by batch in turn."""
    found = []
    for name, lengths in (("log-uniform", log_uniform), ("uniform", uniform)):
        ours = raw = size = 0.0
        for spans in batches(records, lengths):
            ours += cpu(lambda spans=spans: hash_spans(spans))
            raw += cpu(lambda spans=spans: blake3(spans.data).digest())
            size += spans.size
        label = f"{records:,} records, 100 B-4 KB {name}"
        found.append(Row(label, size / ours / 1e9, "GB/s", "raw blake3 of the same bytes", ours / raw, 2))
    return found


def loop_rows(records: int) -> list[Row]:
    """Records of 100 and of 1,000 bytes against `blake3(record).digest()` in a loop."""
    found = []
    for length, goal in ((100, 1 / 8), (1000, 1)):
        count = min(records, POOL // length)
        data = np.random.default_rng(2).integers(0, 256, count * length, np.uint8)
        spans = Spans(data, np.arange(count + 1, dtype=np.int64) * length)
        strings = [data[at : at + length].tobytes() for at in range(0, len(data), length)]
        ours = min(cpu(lambda spans=spans: hash_spans(spans)) for _ in range(3))
        loop = cpu(lambda strings=strings: [blake3(string).digest() for string in strings])
        found.append(
            Row(f"records of {length} bytes", 1e9 * ours / count, "ns each", "a Python loop", ours / loop, goal)
        )
    return found


def tree_rows(leaves: int, for_merkletools: int, for_pymerkle: int) -> list[Row]:
    """The ordered tree over record digests, per leaf, against two other packages on fewer leaves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # merkletools misses a package it does not need here
        from merkletools import MerkleTools
    from pymerkle import InmemoryTree

    digests = np.random.default_rng(4).integers(0, 256, (leaves, 32), np.uint8)
    ours = min(cpu(lambda: ordered_root(digests)) for _ in range(3)) / leaves
    strings = [row.tobytes() for row in digests[:for_merkletools]]

    def other() -> None:
        tree = MerkleTools(hash_type="sha256")
        tree.add_leaf([string.hex() for string in strings], do_hash=True)
        tree.make_tree()
        tree.get_merkle_root()

    def another() -> None:
        tree = InmemoryTree(algorithm="sha256")
        for string in strings[:for_pymerkle]:
            tree.append_entry(string)
        tree.get_root()

    theirs, slowest = cpu(other) / for_merkletools, cpu(another) / for_pymerkle
    name, value = f"tree over {leaves:,} leaves", 1e9 * ours
    return [
        Row(name, value, "ns a leaf", f"merkletools, {for_merkletools:,} leaves", ours / theirs, 1 / 25),
        Row("the same", value, "ns a leaf", f"pymerkle, {for_pymerkle:,} leaves", ours / slowest, 1 / 300),
        Row("the same", ours * leaves, "CPU s", "0.45 s for 10 million", ours * RECORDS / 0.45, 1),
    ]


def rows(records: int = RECORDS) -> list[Row]:
    """All of them, for `records` records and leaves."""
    assert load_kernel(), "the extra [fast] is needed: pip install 'pot-attest[fast]'"
    OrderedRoot().update(np.zeros((1 << 15, 32), np.uint8))
    fewer = max(1000, min(200_000, records // 10))
    return [*mixed_rows(records), *loop_rows(min(records, 1_000_000)), *tree_rows(records, fewer, fewer // 4)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a hundredth of the records")
    finish("data-hashing", rows(RECORDS // 100 if parser.parse_args().small else RECORDS))


if __name__ == "__main__":
    main()
