"""What set commitments cost: sort and root, a tree beyond memory, proofs of absence, portraits against a Bloom filter.

python benchmarks/data_sets.py [--keys N] [--spilled N] [--asked N] [--folder DIR]

The tree over `--spilled` synthetic keys (10^9 unless said otherwise) takes minutes and up to 16 bytes of disk per key;
it is built in a process of its own, whose peak memory is the figure shown.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from table import Row, finish

from pot.commitments.batch import load_kernel
from pot.commitments.setree import SetTree
from pot.commitments.setree_arrays import distinct, to_bytes
from pot.commitments.setree_plain import SetTree as PlainTree
from pot.commitments.setree_spill import spilled
from pot.commitments.setree_verify import verify_absent
from pot.commitments.setree_verify_batch import verify_absent_batch
from pot.data.portrait import make_portrait
from pot.data.portrait_verify import Portrait

T = TypeVar("T")
Keys = NDArray[np.uint64]
RATE = 1e-6
CHUNK = 1 << 22
PLAIN = 100_000


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def best(work: Callable[[], object]) -> float:
    """CPU seconds, the least of three: other programs may share the machine."""
    return min(timed(work)[0] for _ in range(3))


def peak() -> float:
    """Peak resident memory of this program, GB; `ru_maxrss` would count that of the program it was started from."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e9


def synthetic(count: int, seed: int = 0) -> Iterator[Keys]:
    """`count` distinct keys in chunks: the SplitMix64 finaliser over a counter (Steele, Lea, Flood 2014)."""
    for start in range(0, count, CHUNK):
        x = np.arange(start + 1, min(start + CHUNK, count) + 1, dtype=np.uint64) + np.uint64(seed << 40)
        x *= np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        yield x ^ (x >> np.uint64(31))


def keys_in_memory(count: int, seed: int = 0) -> Keys:
    """The same keys in one array."""
    return np.concatenate(list(synthetic(count, seed)))


def as_list(keys: Keys) -> list[bytes]:
    """Keys as byte strings."""
    joined = to_bytes(keys).tobytes()
    return [joined[at : at + 8] for at in range(0, len(joined), 8)]


@njit  # type: ignore[untyped-decorator]
def bloom_places(key: int, hashes: int, size: int, out: NDArray[np.int64]) -> None:
    """Double hashing (Kirsch, Mitzenmacher 2006); keys are digests, so two multiplications mix them well enough."""
    first = key * np.uint64(0xFF51AFD7ED558CCD)
    second = (key ^ (key >> np.uint64(32))) * np.uint64(0xC4CEB9FE1A85EC53) | np.uint64(1)
    for number in range(hashes):
        mixed = first + np.uint64(number) * second
        out[number] = np.int64((mixed ^ (mixed >> np.uint64(29))) % np.uint64(size))


@njit  # type: ignore[untyped-decorator]
def bloom_build(keys: Keys, hashes: int, size: int) -> NDArray[np.uint8]:
    """A Bloom filter of `size` bits, as Data Portraits (Marone, Van Durme 2023) publish them."""
    bits, places = np.zeros((size + 7) // 8, np.uint8), np.empty(hashes, np.int64)
    for key in keys:
        bloom_places(key, hashes, size, places)
        for place in places:
            bits[place >> 3] |= np.uint8(1 << (place & 7))
    return bits


@njit  # type: ignore[untyped-decorator]
def bloom_query(bits: NDArray[np.uint8], keys: Keys, hashes: int, size: int) -> NDArray[np.bool_]:
    """Which keys the filter may hold."""
    found, places = np.ones(len(keys), np.bool_), np.empty(hashes, np.int64)
    for at in range(len(keys)):
        bloom_places(keys[at], hashes, size, places)
        for place in places:
            if not bits[place >> 3] >> (place & 7) & 1:
                found[at] = False
                break
    return found


def in_memory(count: int) -> list[Row]:
    """Sort and root of keys in memory, beside the plain definition."""
    keys, few = keys_in_memory(count), keys_in_memory(PLAIN)
    SetTree.of_keys(keys)  # loads compiled code
    sort_seconds, seconds = best(lambda: distinct(keys)), best(lambda: SetTree.of_keys(keys))
    listed = sorted(as_list(few))
    plain_seconds, plain = timed(lambda: PlainTree(listed))
    assert plain.root == SetTree.of_keys(few).root
    plain_each = plain_seconds / PLAIN
    name = f"{count:.0e} keys"
    return [
        Row(f"{name}: sort and set root, CPU", seconds, "s", "0.5 s per 10 M", seconds / (0.5 * count / 1e7), 1),
        Row("of which sorting", sort_seconds, "s", "sort and set root", sort_seconds / seconds, 1),
        Row("one key, without sorting", (seconds - sort_seconds) / count * 1e9, "ns", "plain Python",
            (seconds - sort_seconds) / count / plain_each, 0.05),
    ]  # fmt: skip


def big_tree(count: int, asked: int, folder: str) -> dict[str, float]:
    """Build, prove, verify for keys in files; runs in the child."""
    load_kernel()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder or None) as own, spilled(synthetic(count), Path(own)) as tree:
        built = time.perf_counter() - start
        peak_built = peak()
        prove, verify, verify_list = [], [], []
        for trial in range(3):
            question = np.random.default_rng(trial).integers(0, 1 << 64, asked, dtype=np.uint64)
            listed = as_list(question)
            seconds, proof = timed(partial(tree.prove_absent_keys, question))
            prove.append(seconds)
            verify.append(timed(partial(verify_absent_batch, tree.root, tree.depth, tree.count, question, proof))[0])
            verify_list.append(timed(partial(verify_absent, tree.root, tree.depth, tree.count, listed, proof))[0])
    return {
        "built": built, "peak": peak_built, "proof": len(proof) / 1e6, "prove": statistics.median(prove),
        "verify": statistics.median(verify), "verify_list": statistics.median(verify_list),
        "peak_after": peak(),
    }  # fmt: skip


def beyond_memory(count: int, asked: int, folder: str) -> list[Row]:
    """The tree over keys in files, measured in a child."""
    command = [sys.executable, __file__, "--child", "--spilled", str(count), "--asked", str(asked), "--folder", folder]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    name, question = f"{count:.0e} keys", f"{asked:.0e} against {count:.0e}"
    return [
        Row(f"{name}: set root, wall", found["built"], "s", "100 ns per key", found["built"] / (count * 1e-7), 2),
        Row("its peak memory", found["peak"], "GB", "2.5 GB", found["peak"] / 2.5, 1),
        Row("with proving and verifying", found["peak_after"], "GB", "2.5 GB", found["peak_after"] / 2.5, 1),
        Row(f"{question}: proof", found["proof"], "MB", "37 MB", found["proof"] / 37, 1),
        Row("prove, CPU", found["prove"], "s", "0.5 s", found["prove"] / 0.5, 1),
        Row("verify an array, CPU", found["verify"], "s", "0.5 s", found["verify"] / 0.5, 1),
        Row("verify a list, CPU", found["verify_list"], "s", "0.5 s", found["verify_list"] / 0.5, 1),
    ]


def portrait(count: int) -> list[Row]:
    """A portrait and a Bloom filter of the same keys at the same rate."""
    keys, strangers = distinct(keys_in_memory(count)), keys_in_memory(1_000_000, seed=1)
    tree = SetTree.of_keys(keys)
    fields = SimpleNamespace(count=str(tree.count), depth=str(tree.depth), root_blake3=tree.root.hex())
    commitment: Any = SimpleNamespace(sha256=lambda: "0" * 64, view="text/1", set=fields, hiding=None)
    make_seconds, made = timed(lambda: make_portrait(commitment, keys, RATE))
    data = made.to_bytes()
    read_seconds, read = timed(lambda: Portrait.from_bytes(data))
    ask_seconds, answers = timed(lambda: read.may_contain_keys(strangers))
    hashes, size = round(math.log2(1 / RATE)), math.ceil(count * math.log(1 / RATE) / math.log(2) ** 2)
    bloom_query(bloom_build(keys[:10], hashes, size), keys[:10], hashes, size)  # compiles
    bloom_seconds, bloom = timed(lambda: bloom_build(keys, hashes, size))
    bloom_ask, bloom_answers = timed(lambda: bloom_query(bloom, strangers, hashes, size))
    assert read.may_contain_keys(keys[::1000]).all()
    assert bloom_query(bloom, keys[::1000], hashes, size).all()
    bits, bloom_bits = 8 * len(data) / count, 8 * len(bloom) / count
    print(f"false maybes of {len(strangers)}: portrait {int(answers.sum())}, Bloom {int(bloom_answers.sum())}")
    return [
        Row(f"portrait at {RATE:g}, bits per key", bits, "bits", f"Bloom filter, {bloom_bits:.1f}",
            bits / bloom_bits, 0.8),
        Row("making it, CPU", make_seconds, "s", "building the filter", make_seconds / bloom_seconds, 1),
        Row("reading it, CPU", read_seconds, "s", "building the filter", read_seconds / bloom_seconds, 0.5),
        Row("asking it, a million keys at once", ask_seconds / len(strangers) * 1e9, "ns", "asking the filter",
            ask_seconds / bloom_ask, 5),
    ]  # fmt: skip


def rows(keys: int, spilled_keys: int, asked: int = 100_000, folder: str = "") -> list[Row]:
    """Everything: `keys` in memory and in a portrait, `spilled_keys` in files of `folder`, `asked` keys of X."""
    load_kernel()
    return in_memory(keys) + portrait(keys) + beyond_memory(spilled_keys, asked, folder)


def main() -> None:
    """Run everything once and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--spilled", type=int, default=1_000_000_000)
    parser.add_argument("--asked", type=int, default=100_000)
    parser.add_argument("--folder", default="", help="where the big tree's files lie, for the time of the run")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(big_tree(options.spilled, options.asked, options.folder)))
        return
    finish("data_sets", rows(options.keys, options.spilled, options.asked, options.folder))


if __name__ == "__main__":
    main()
