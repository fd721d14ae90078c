"""What seeing text through a view costs: normalising, winnowing, tiles, MinHash; of code, English, Chinese and Hindi.

    benchmarks/data_views.py          the table: a minute
    benchmarks/data_views.py --small  a twentieth of it, to see that it runs

CPU seconds of one process on one core, the least of three; MB are of the stored text, in UTF-8. Reading files and trees
over the keys are not in it.
"""

from __future__ import annotations

import argparse
import sysconfig
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from table import Row, finish

from pot.commitments import batch
from pot.commitments.spans import Spans
from pot.data.views import VIEWS, load_kernel, view_named

__all__ = ["rows"]

MIB = 1 << 20
GOAL = 60  # MB/s of winnowing, with normalising
BATCH = 8 * MIB  # as `pot.data.digest` takes them
ACCENTED = (
    *("café", "naïve", "Überlingen", "“quoted”", "–", "piñata", "Dvořák’s", "10 €", "№"),
    unicodedata.normalize("NFD", "résumé"),
)


def code() -> Iterator[bytes]:
    """The sources of the running Python's standard library, one file a record."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        data = path.read_bytes()
        if "site-packages" not in path.parts and _is_utf8(data):
            yield data


def english(size: int) -> Iterator[bytes]:
    """Words of Python's manual in random order, one in a hundred with characters beyond ASCII; 2 KB a record."""
    import pydoc_data.topics

    words = np.array(" ".join(pydoc_data.topics.topics.values()).split(), object)
    rng = np.random.default_rng(1)
    while size > 0:
        chosen = rng.choice(words, 300)
        accented = rng.random(300) < 0.01
        chosen[accented] = rng.choice(np.array(ACCENTED, object), int(accented.sum()))
        record = " ".join(chosen).encode()
        size -= len(record)
        yield record


def letters(size: int, first: int, last: int, stop: str, word: int) -> Iterator[bytes]:
    """Random characters of a range in runs of `word`, with `stop` between them; 700 characters a record."""
    rng = np.random.default_rng(2)
    while size > 0:
        characters = "".join(map(chr, rng.integers(first, last + 1, 700).tolist()))
        record = stop.join(characters[at : at + word] for at in range(0, 700, word)).encode()
        size -= len(record)
        yield record


def _is_utf8(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def batches(records: Iterator[bytes], size: int) -> list[Spans]:
    """Up to `size` bytes in batches."""
    found: list[Spans] = []
    held: list[bytes] = []
    for record in records:
        held.append(record)
        size -= len(record)
        if size <= 0 or sum(map(len, held)) >= BATCH:
            found.append(Spans.of(held))
            held = []
        if size <= 0:
            break
    return [*found, Spans.of(held)] if held else found


def rate(work: Callable[[Spans], object], texts: list[Spans]) -> float:
    """MB per CPU second, the best of three."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for spans in texts:
            work(spans)
        best = min(best, time.process_time() - began)
    return sum(spans.size for spans in texts) / best / 1e6


def whole(name: str, role: str) -> Callable[[Spans], object]:
    """A gram view from text to keys."""
    view = view_named(name)
    return lambda spans: view.keys(view.transform(spans), role, None)  # type: ignore[arg-type]


def rows(scale: int = 1) -> list[Row]:
    """The table's rows. Raises `RuntimeError` where Numba is missing: what is measured is the compiled code."""
    if not (load_kernel() and batch.load_kernel()):
        raise RuntimeError("the extra [fast] is needed for this benchmark")
    size = 40 * MIB // scale
    texts = {
        "Python's library": batches(code(), size),
        "English, 1 % words with accents": batches(english(size), size),
        "Chinese": batches(letters(size, 0x4E00, 0x9FA5, "，", 12), size),
        "Hindi": batches(letters(size, 0x905, 0x94D, " ", 5), size),
    }
    normalise = VIEWS["text-norm/1"].transform
    found = []
    for name, spans in texts.items():
        goal = 6 if name == "Hindi" else 1  # vowel signs reach backwards, and random words are never met again
        for view, work in (("text-norm", normalise), ("winnow50 with it", whole("winnow50/1", "training"))):
            value = rate(work, spans)
            found.append(Row(f"{view}: {name}", value, "MB/s", f"{GOAL} MB/s", GOAL / value, goal))
    some = texts["Python's library"]
    for name, view, role, goal in (
        ("tiles50 of training data", "tiles50/1", "training", 1),
        ("tiles50 of X", "tiles50/1", "exclusion", 6),
        ("minhash", "minhash/1", "training", 2),
    ):
        value = rate(whole(view, role), some)
        found.append(Row(f"{name}: Python's library", value, "MB/s", f"{GOAL} MB/s", GOAL / value, goal))
    tokens = Spans.of(np.random.default_rng(3).integers(0, 50_000, size // 4).astype("<u4").tobytes() for _ in "1")
    value = rate(whole("winnow50-tokens/1", "training"), [tokens]) / 4
    found.append(Row("winnow50-tokens", value, "M tokens/s", "15 M tokens/s", 15 / value, 1))
    return found


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--small", action="store_true", help="a twentieth of the size")
    finish("data_views", rows(20 if options.parse_args().small else 1))


if __name__ == "__main__":
    main()
