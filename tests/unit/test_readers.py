"""Containers to records: what is read, in which order, with which digests, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest

from pot.data.readers import RecordDataset, ShardReader, read_one, read_records, shard_files
from pot.errors import LimitExceeded, Malformed, PotError, UsageError


def jsonl(path: Path, count: int = 3, start: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": number}) + "\n" for number in range(start, start + count)))
    return path


def test_records_come_in_order_with_the_digests_of_the_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl")
    reader = ShardReader(path, "jsonl")
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
    monkeypatch.setattr("pot.data.readers.MAX_RECORD_BYTES", 64)
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
        list(ShardReader(tmp_path / "pipe.jsonl", "jsonl").records())


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
    assert read_one(jsonl(tmp_path / "one.json", 1), "jsonl").value == {"id": 0}
    for path in (jsonl(tmp_path / "two.json", 2), jsonl(tmp_path / "none.json", 0), tmp_path):
        with pytest.raises(UsageError):
            read_one(path, "jsonl")
