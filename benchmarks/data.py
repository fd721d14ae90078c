"""What committing to data costs: hashing, trees, proofs, views, reading; each beside a peer or a limit of the same run.

    make bench-data            all of it: some ten minutes, 12 GB of disk, 3 GB of memory
    benchmarks/data.py --small a hundredth of it, to see that it runs

One core throughout: everything is measured as CPU seconds of one process (`time.process_time`), memory as the peak of a
process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import data_hashing
import data_sets
import data_views
import numpy as np
from blake3 import blake3
from table import Row, finish

RECORDS = 10_000_000
SHORTEST, LONGEST = 100, 4096
POOL = 1 << 28
BATCH = 50_000


def lengths(count: int, seed: int) -> np.ndarray:
    """Log-uniform between 100 bytes and 4 KB: 1,077 bytes on average."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST), count)).astype(np.int64)


def whole_pipeline(records: int) -> None:
    """In a process of its own: digests and both roots of many records. Prints CPU seconds, peak GB, bytes hashed."""
    from pot.commitments.batch import hash_spans, keys_of, load_kernel
    from pot.commitments.merkle import OrderedRoot
    from pot.commitments.setree import SetTree
    from pot.commitments.spans import Spans

    pool = np.random.default_rng(1).integers(0, 256, POOL, np.uint8)
    load_kernel()
    ordered, keys, size, cpu = OrderedRoot(), np.empty(records, np.uint64), 0, 0.0
    for start in range(0, records, BATCH):
        count = min(BATCH, records - start)
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(lengths(count, start), out=offsets[1:])
        shift = (start // BATCH * 9973) % (POOL - int(offsets[-1]))
        spans = Spans(pool[shift : shift + int(offsets[-1])], offsets)
        began = time.process_time()
        digests = hash_spans(spans)
        ordered.update(digests)
        keys[start : start + count] = keys_of(digests)
        cpu += time.process_time() - began
        size += spans.size
    began = time.process_time()
    ordered.root()
    SetTree.of_keys(keys)
    cpu += time.process_time() - began
    print(cpu, data_sets.peak(), size)


def whole_commitment(path: Path) -> None:
    """In a process of its own: what `pot data commit` does. Prints its peak memory in GB."""
    from pot.data.commit import commit, write_committed

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        write_committed(commit([path], "text/1", work=work), Path(folder) / "C.json", work)
    print(data_sets.peak())


def pipeline_rows(records: int) -> list[Row]:
    """Digests and both roots, against the budget of the goal and against raw BLAKE3 of the same number of bytes."""
    words = [sys.executable, __file__, "--pipeline", str(records)]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    cpu, peak, size = (float(word) for word in printed.split())
    pool = np.random.default_rng(1).integers(0, 256, POOL, np.uint8).tobytes()
    began = time.process_time()
    for _ in range(4):
        blake3(pool).digest()
    raw = (time.process_time() - began) / 4 / POOL * size
    budget = 7 * records / RECORDS
    return [
        Row(f"{records:,} records to both roots", cpu, "CPU s", f"{budget:g} s", cpu / budget, 1),
        Row("the same", cpu, "CPU s", "raw blake3 of as many bytes", cpu / raw, 3),
        Row("its peak memory", peak, "GB", "2.5 GB", peak / 2.5, 1),
    ]


def arrow_rows(records: int) -> list[Row]:
    """A memory-mapped Arrow file of a string column, its records read and hashed; and the whole of `pot data commit`.

    The second also makes the file's own SHA-256 and BLAKE3, which pre-commitments name it by; SHA-256 is its limit.
    """
    import pyarrow as pa

    from pot.commitments.batch import hash_spans, load_kernel
    from pot.data.commit import commit
    from pot.data.readers import open_shard
    from pot.data.readers.source import Digests

    class Unhashed(Digests):
        def update(self, data: Any) -> None:
            self.size += len(data)

    load_kernel()

    sizes = lengths(records, 7)
    pool = np.random.default_rng(3).integers(32, 127, POOL, np.uint8)
    offsets = np.zeros(records + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.arrow"
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.resize(pool, int(offsets[-1])))]
        column = pa.Array.from_buffers(pa.large_string(), records, buffers)
        table = pa.table({"text": column})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=1 << 16)
        size = path.stat().st_size
        blake3(max_threads=1).update_mmap(str(path))  # into the page cache
        reader = open_shard(path, "arrow", needs="text")
        reader._digests = Unhashed()
        began = time.process_time()
        hashed = sum(len(hash_spans(spans)) for spans in reader.spans("text") or ())
        read = time.process_time() - began
        began = time.process_time()
        with path.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")
        limit = time.process_time() - began
        began = time.process_time()
        commit([path], "text/1")
        whole = time.process_time() - began
        words = [sys.executable, __file__, "--commit", str(path)]
        peak = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert hashed == records
    return [
        Row("Arrow, read and hashed", size / read / 1e9, "GB/s", "1 GB/s", 1e9 * read / size, 1),
        Row("Arrow, pot data commit", size / whole / 1e9, "GB/s", "SHA-256 of the file alone", whole / limit, 3),
        Row("its peak memory", peak, "GB", "1 GB", peak, 1),
    ]


def signing_rows(files: int) -> list[Row]:
    """A folder of files: our commitment (SHA-256 and BLAKE3 of each, both roots) beside model_signing's hashing."""
    from model_signing.hashing import Config

    from pot.data.commit import commit

    rng = np.random.default_rng(5)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            (Path(folder) / f"{number:04d}.bin").write_bytes(rng.bytes(1 << 22))
        began = time.process_time()
        Config().hash(folder)
        theirs = time.process_time() - began
        began = time.process_time()
        commit([Path(folder)], "file/1")
        ours = time.process_time() - began
    return [Row("commit to a folder of files", ours, "CPU s", "model_signing's hashing", ours / theirs, 2)]


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--small", action="store_true", help="a hundredth of the sizes")
    options.add_argument("--pipeline", type=int, metavar="RECORDS", help=argparse.SUPPRESS)
    options.add_argument("--commit", type=Path, metavar="PATH", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.commit:
        whole_commitment(chosen.commit)
        return
    if chosen.pipeline:
        whole_pipeline(chosen.pipeline)
        return
    scale = 100 if chosen.small else 1
    rows = [
        *data_hashing.rows(RECORDS // scale),
        *pipeline_rows(RECORDS // scale),
        *data_sets.rows(RECORDS // scale, 1_000_000_000 // scale),
        *data_views.rows(),
        *arrow_rows(1_000_000 // scale),
        *signing_rows(64 if chosen.small else 256),
    ]
    finish("data", rows)


if __name__ == "__main__":
    main()
