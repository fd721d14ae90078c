"""The same records give the same view bytes, whatever container they came in and however it was cut."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from containers import VALUES, WRITERS, Stored, hf

from pot.commitments.dataset import GRAM_VIEWS, RecordsRoot, SetRoot
from pot.data.commit import commit, commit_records
from pot.data.readers import (
    CONTAINERS,
    Record,
    check_schemas,
    dataset_records,
    guess_container,
    open_shard,
    shard_files,
)
from pot.data.views import view_named

CASES = [(kind, name) for kind, writers in WRITERS.items() for name in writers]


PLAIN = {"text": "text/1", "tokens": "tokens/1", "image": "pixels/1", "object": "json/1", "bytes": "file/1"}


def content(needs: str, record: Record) -> bytes:
    """The record's view bytes, through the plain view with that need."""
    return view_named(PLAIN[needs]).content(record)


def read(stored: Stored, needs: str) -> list[bytes]:
    if stored.dataset is not None:
        return [content(needs, record) for record in dataset_records(stored.dataset, needs, stored.fields).records()]
    shards = shard_files([stored.path], stored.container)
    check_schemas(shards, stored.container, needs, stored.fields)
    found = []
    for _, path in shards:
        reader = open_shard(path, stored.container, stored.fields, needs=needs)
        found += [content(needs, record) for record in reader.records()]
        assert (reader.skipped, reader.cut) == (0, False)
    return found


def expected(kind: str) -> list[bytes]:
    return [content(kind, Record("", b"", value if kind == "object" else {kind: value})) for value in VALUES[kind]]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_same_view_bytes_from_every_container(tmp_path: Path, kind: str, name: str) -> None:
    stored = WRITERS[kind][name](VALUES[kind], tmp_path)
    assert read(stored, kind) == expected(kind)


VIEWS_OF = {
    "text": ("text/1", "text-norm/1", "winnow50/1", "tiles50/1", "minhash/1"),
    "tokens": ("tokens/1",),
    "image": ("pixels/1",),
    "object": ("json/1",),
    "bytes": ("file/1",),
}


def roots(stored: Stored, view: str) -> tuple[RecordsRoot, SetRoot]:
    if stored.dataset is not None:
        commitment = commit_records(stored.dataset, view, fields=stored.fields).commitment
    else:
        commitment = commit([stored.path], view, container=stored.container, fields=stored.fields).commitment
    return commitment.records, commitment.set


@pytest.mark.parametrize(("kind", "view"), [(kind, view) for kind, views in VIEWS_OF.items() for view in views])
def test_same_roots_from_every_container(tmp_path: Path, kind: str, view: str) -> None:
    """What a stranger compares: both roots and all counts, through the whole pipeline."""
    values = VALUES[kind]
    if view in GRAM_VIEWS:  # long enough for a key, beside those that are not
        values = [*values, *(f"{value} {'and something long that goes on' * 9}" for value in values)]
    found = {}
    for name, write in WRITERS[kind].items():
        (tmp_path / name).mkdir()
        found[name] = roots(write(values, tmp_path / name), view)
    first = next(iter(found.values()))
    assert {name: pair for name, pair in found.items() if pair != first} == {}
    assert int(first[0].count) == len(values)


COLOUR = [[[[0, 1, 2], [255, 254, 253]]], [[[7, 7, 7]], [[8, 9, 10]], [[0, 0, 0]]]]


@pytest.mark.parametrize("name", WRITERS["image"])
def test_same_colours_from_every_container(tmp_path: Path, name: str) -> None:
    stored = WRITERS["image"][name](COLOUR, tmp_path)
    assert read(stored, "image") == [content("image", Record("", b"", {"image": value})) for value in COLOUR]


def test_an_extension_type_is_its_storage(tmp_path: Path) -> None:
    """`datasets` stores arrays of fixed shape as a type of its own, which is known only where it is imported."""
    import datasets

    values = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    form = datasets.Features({"image": datasets.Array2D((2, 2), "uint8")})
    stored = hf({"image": values}, tmp_path / "hf", form)
    expected = [content("image", Record("", b"", {"image": value})) for value in values]
    assert read(stored, "image") == expected
    script = (
        "import sys; from pathlib import Path; from pot.data.readers import open_shard, shard_files\n"
        "shards = shard_files([Path(sys.argv[1])], 'hf')\n"
        "print([r.value['image'] for _, p in shards for r in open_shard(p, 'hf', needs='image').records()])\n"
        "assert 'datasets' not in sys.modules"
    )
    plain = subprocess.run([sys.executable, "-c", script, stored.path], capture_output=True, text=True, check=True)
    assert plain.stdout.strip() == str(values)


@pytest.mark.parametrize(("kind", "name"), [case for case in CASES if case[0] in ("text", "bytes")])
def test_the_fast_way_hands_over_what_the_slow_one_does(tmp_path: Path, kind: str, name: str) -> None:
    stored = WRITERS[kind][name](VALUES[kind], tmp_path)
    columnar = stored.container in ("arrow", "parquet", "hf")
    found: list[bytes] = []
    for _, path in [] if stored.dataset is not None else shard_files([stored.path], stored.container):
        slow = open_shard(path, stored.container, stored.fields, needs=kind)
        assert list(slow.records()) is not None
        fast = open_shard(path, stored.container, stored.fields, needs=kind)
        batches = fast.spans(kind)
        assert (batches is not None) == columnar
        for spans in batches or ():
            found += list(spans.check())
        if columnar:
            assert (fast.sha256, fast.blake3, fast.bytes_read) == (slow.sha256, slow.blake3, slow.bytes_read)
    assert found == (expected(kind) if columnar else [])


@pytest.mark.parametrize("kind", [kind for kind in VALUES if kind != "text"])
def test_other_views_have_no_fast_way(tmp_path: Path, kind: str) -> None:
    stored = WRITERS[kind]["arrow" if kind != "image" else "arrow, png"](VALUES[kind], tmp_path)
    reader = open_shard(stored.path, "arrow", needs=kind)
    assert (reader.spans(kind) is not None) == (kind == "bytes")
    assert reader.spans("text") is None


def test_every_container_holds_something() -> None:
    """No reader goes unchecked by this file."""
    with_a_case = {"text": "text files", "images": "files, PNG", "file": "files"}
    names = " ".join(name for _, name in CASES)
    for container in CONTAINERS:
        assert with_a_case.get(container, container) in names


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_containers_are_recognised(tmp_path: Path, kind: str, name: str) -> None:
    stored = WRITERS[kind][name](VALUES[kind], tmp_path)
    if stored.dataset is None:
        assert guess_container(stored.path) == ("file" if stored.container == "text" else stored.container)
