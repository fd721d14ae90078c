"""Containers to records: what is read, in which order, with which digests, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pot.data.readers import (
    CONTAINERS,
    RecordDataset,
    check_schemas,
    container_for,
    guess_container,
    open_shard,
    read_one,
    read_records,
    shard_files,
)
from pot.errors import LimitExceeded, Malformed, PotError, UsageError


def jsonl(path: Path, count: int = 3, start: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": number}) + "\n" for number in range(start, start + count)))
    return path


def test_records_come_in_order_with_the_digests_of_the_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl")
    reader = open_shard(path, "jsonl")
    assert [record.value for record in reader.records()] == [{"id": 0}, {"id": 1}, {"id": 2}]
    assert reader.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert reader.bytes_read == path.stat().st_size


def test_the_last_newline_is_optional_and_crlf_is_white_space(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":0}\r\n{"id":1}')
    assert [record.value for record in read_records(path)] == [{"id": 0}, {"id": 1}]


def test_a_folder_stands_for_its_files_in_name_order(tmp_path: Path) -> None:
    jsonl(tmp_path / "d" / "b.jsonl", 1, 10)
    jsonl(tmp_path / "d" / "a" / "z.jsonl", 1, 20)
    assert [record.value for record in read_records(tmp_path / "d")] == [{"id": 20}, {"id": 10}]
    assert [name for name, _ in shard_files([tmp_path / "d"], "jsonl")] == ["a/z.jsonl", "b.jsonl"]


def test_plain_files_are_one_record_each(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_bytes(b"\x00\x01")
    jsonl(tmp_path / "d" / "y.jsonl")
    records = list(read_records(tmp_path / "d"))
    assert records[0].data == b"\x00\x01"
    assert [record.value for record in records] == [None, None]


@pytest.mark.parametrize(
    "content",
    [
        b"\n",
        b'{"id":0}\n\n{"id":1}\n',
        b"[1]\n",
        b"1\n",
        b'{"id":0\n',
        b'{"id":0}{"id":1}\n',
        b'{"id":0,"id":1}\n',
        b'{"id":NaN}\n',
        b'{"id":9007199254740993}\n',
        b'{"id":"\\ud800"}\n',
        b"\xff\xfe{}\n",
        b"\xef\xbb\xbf{}\n",
        b"\x80\x04\x95\x00",
        b'{"a":' * 40 + b"1" + b"}" * 40 + b"\n",
    ],
)
def test_lines_that_are_no_strict_json_object_are_refused_with_their_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(Malformed, match=r"a\.jsonl line [12]"):
        list(read_records(path))


def test_an_oversized_record_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pot.data.readers.record.MAX_RECORD_BYTES", 64)
    for name in ("a.jsonl", "a.bin"):
        path = tmp_path / name
        path.write_bytes(b'{"x":"' + b"y" * 100 + b'"}')
        with pytest.raises(LimitExceeded):
            list(read_records(path))
    with pytest.raises(LimitExceeded):
        RecordDataset(tmp_path / "a.jsonl")


def test_paths_that_cannot_be_shards_are_refused(tmp_path: Path) -> None:
    good = jsonl(tmp_path / "a.jsonl")
    (tmp_path / "link.jsonl").symlink_to(good)
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    same = jsonl(tmp_path / "other" / "a.jsonl")
    text = tmp_path / "a.txt"
    text.write_text("x")
    for paths in (
        [tmp_path / "absent.jsonl"],
        [tmp_path / "link.jsonl"],
        [tmp_path / "empty"],
        [tmp_path],
        [good, same],
        [text],
        [Path("x" * 5000)],
        [Path("nul\0byte")],
    ):
        with pytest.raises(PotError):
            shard_files(paths, "jsonl")
    with pytest.raises(UsageError, match="not a regular file"):
        list(open_shard(tmp_path / "pipe.jsonl", "jsonl").records())


def test_dataset_gives_random_access_in_commitment_order(tmp_path: Path) -> None:
    jsonl(tmp_path / "d" / "a.jsonl", 4)
    jsonl(tmp_path / "d" / "b.jsonl", 3, 4)
    dataset = RecordDataset(tmp_path / "d")
    assert len(dataset) == 7
    assert dataset.path == tmp_path / "d"
    assert [dataset[index]["id"] for index in (6, 0, 4, 3)] == [6, 0, 4, 3]
    assert list(dataset) == [record.value for record in read_records(tmp_path / "d")]
    for index in (-1, 7):
        with pytest.raises(IndexError):
            dataset[index]


def test_dataset_travels_to_another_process(tmp_path: Path) -> None:
    dataset = RecordDataset(jsonl(tmp_path / "a.jsonl"))
    assert dataset[1] == {"id": 1}
    assert pickle.loads(pickle.dumps(dataset))[2] == {"id": 2}


def test_one_record_means_exactly_one(tmp_path: Path) -> None:
    assert read_one(jsonl(tmp_path / "one.json", 1), "object").value == {"id": 0}
    for path in (jsonl(tmp_path / "two.json", 2), jsonl(tmp_path / "none.json", 0), tmp_path):
        with pytest.raises(UsageError):
            read_one(path, "object")


@pytest.mark.parametrize(
    ("names", "container"),
    [
        (["a.jsonl", "b.jsonl"], "jsonl"), (["a.jsonl.zst"], "jsonl.zst"), (["a.parquet", "d/b.PARQUET"], "parquet"),
        (["a.arrow", "b.feather"], "arrow"), (["a.tar"], "webdataset"), (["a.png", "b.bmp", "c.ppm"], "images"),
        (["a.bin", "a.idx"], "megatron"), (["a.bin"], "file"), (["a.txt"], "file"), (["a.jsonl", "b.txt"], "file"),
        (["a.jpg"], "file"), (["state.json", "a.arrow"], "hf"), (["dataset_dict.json"], "hf"),
        (["index.json", "shard.00000.mds"], "mds"), (["index.json", "shard.00000.mds.zstd"], "mds"),
        (["index.json", "x.json"], "file"), (["a.tar.gz"], "file"),
    ],
)  # fmt: skip
def test_names_tell_the_container(tmp_path: Path, names: list[str], container: str) -> None:
    for name in names:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(b"")
    assert guess_container(tmp_path / "d") == container
    if container not in ("hf", "mds") and len({Path(name).suffix.lower() for name in names}) == 1:
        assert guess_container(tmp_path / "d" / names[0]) == container
    assert container in CONTAINERS


def test_what_a_view_needs_decides_between_records_and_plain_files(tmp_path: Path) -> None:
    lines, image = jsonl(tmp_path / "a.jsonl"), tmp_path / "a.png"
    image.write_bytes(b"\x89PNG")
    text = tmp_path / "a.txt"
    text.write_text("x")
    expected = {
        lines: {"text": "jsonl", "object": "jsonl", "bytes": "file"},
        image: {"image": "images", "bytes": "file"},
        text: {"text": "text", "bytes": "file", "object": "jsonl", "tokens": "jsonl", "image": "jsonl"},
    }
    for path, containers in expected.items():
        assert {needs: container_for([path], needs) for needs in containers} == containers
    with pytest.raises(UsageError, match=r"a\.jsonl looks like jsonl, .*a\.txt like file"):
        container_for([lines, text], "text")
    with pytest.raises(UsageError, match="no file"):
        container_for([], "text")


@pytest.mark.parametrize("container", sorted(set(CONTAINERS) - {"file", "text"}))
def test_a_shard_of_another_suffix_is_refused_by_a_sentence(tmp_path: Path, container: str) -> None:
    path = tmp_path / "a.xyz"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"a\.xyz: not a \.[a-z]+"):
        shard_files([path], container)


def test_an_unknown_container_is_refused_naming_the_known(tmp_path: Path) -> None:
    for call in (
        lambda: shard_files([tmp_path], "zip"),
        lambda: open_shard(tmp_path, "zip"),
        lambda: check_schemas([], "zip", "text") or shard_files([], "zip"),
    ):
        with pytest.raises(UsageError, match=r"known are jsonl, jsonl\.zst, parquet"):
            call()


def test_one_record_is_read_as_the_view_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("a note\n")
    assert (read_one(path, "text").data, read_one(path, "bytes").value) == (b"a note\n", None)
    line = jsonl(tmp_path / "one.jsonl", 1)
    assert read_one(line, "bytes").data == line.read_bytes()
    assert read_one(line, "object").value == {"id": 0}
    path.write_text('{"tokens":[1,2]}')
    assert read_one(path, "tokens").value == {"tokens": [1, 2]}


def test_an_image_file_is_an_image_or_a_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG")
    assert read_one(path, "image").value == {"image": b"\x89PNG"}
    assert (read_one(path, "bytes").value, read_one(path, "bytes").data) == (None, b"\x89PNG")


def test_further_fields_come_with_the_needed_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"content":"a","licence":"MIT","more":1}\n{"content":"b"}\n')
    reader = open_shard(path, "jsonl", {"text": "content", "licence": "licence"}, "skip", "text")
    assert [record.value for record in reader.records()] == [{"text": "a", "licence": "MIT"}]
    assert reader.skipped == 1


def test_nothing_heavy_is_loaded_before_a_container_needs_it() -> None:
    script = "import sys, pot.data.readers; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pyarrow", "zstandard", "PIL", "torch", "datasets"} & set(loaded)
