"""From files to a commitment on disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pot.commitments.hashing import record_digest
from pot.data.commit import commit, listing_path, load_committed, write_committed
from pot.errors import Malformed, UsageError


def jsonl(path: Path, numbers: range) -> Path:
    path.write_text("".join(json.dumps({"id": number}) + "\n" for number in numbers))
    return path


def test_the_same_records_in_other_files_give_the_same_roots(tmp_path: Path) -> None:
    whole = commit([jsonl(tmp_path / "whole.jsonl", range(10))], "json/1")
    spaced = tmp_path / "spaced.jsonl"
    spaced.write_text("".join(f' {{ "id" : {number} }}\r\n' for number in range(10)))
    parts = [jsonl(tmp_path / f"{name}.jsonl", part) for name, part in (("a", range(4)), ("b", range(4, 10)))]
    for other in (commit([spaced], "json/1"), commit(parts, "json/1")):
        assert other.commitment.records == whole.commitment.records
        assert other.commitment.set == whole.commitment.set
        assert other.commitment.shards != whole.commitment.shards
    assert bytes(whole.listing)[:32] == record_digest(b'{"id":0}')
    assert whole.commitment.records.bytes == "80"


def test_workers_change_nothing_but_the_speed(tmp_path: Path) -> None:
    paths = [jsonl(tmp_path / f"{n}.jsonl", range(n, n + 5)) for n in range(3)]
    calls: list[tuple[int, int]] = []
    alone = commit(paths, "json/1", progress=lambda done, total: calls.append((done, total)))
    assert commit(paths, "json/1", workers=2) == alone
    size = sum(path.stat().st_size for path in paths)
    assert calls[-1] == (size, size)
    (tmp_path / "bad.jsonl").write_text("x\n")
    with pytest.raises(Malformed, match=r"bad\.jsonl line 1"):
        commit([*paths, tmp_path / "bad.jsonl"], "json/1", workers=2)


def test_it_reads_back(tmp_path: Path) -> None:
    committed = commit([jsonl(tmp_path / "a.jsonl", range(9))], "json/1", "exclusion")
    write_committed(committed, tmp_path / "out" / "C.json")
    assert (tmp_path / "out" / "C.digests").read_bytes() == bytes(committed.listing)
    again = load_committed(tmp_path / "out" / "C.json")
    assert (again.commitment, bytes(again.listing)) == (committed.commitment, bytes(committed.listing))
    assert listing_path(Path("x/plain"), again.commitment) == Path("x/plain.digests")


def test_files_are_records_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_bytes(b"1")
    (tmp_path / "d" / "y").write_bytes(b"")
    committed = commit([tmp_path / "d"], "file/1")
    assert bytes(committed.listing) == record_digest(b"1") + record_digest(b"")


def test_nothing_to_commit_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no record"):
        commit([jsonl(tmp_path / "empty.jsonl", range(0))], "json/1")
    with pytest.raises(UsageError):
        commit([], "json/1")
    with pytest.raises(UsageError, match="workers"):
        commit([tmp_path / "empty.jsonl"], "json/1", workers=0)
    with pytest.raises(UsageError, match="view"):
        commit([tmp_path / "empty.jsonl"], "pixels/9")


def test_a_list_that_does_not_belong_is_malformed(tmp_path: Path) -> None:
    out = tmp_path / "C.json"
    committed = commit([jsonl(tmp_path / "a.jsonl", range(9))], "json/1")
    write_committed(committed, out)
    listing = bytes(committed.listing)
    for data in (listing[:-32], listing[::-1], listing + b"x", b""):
        (tmp_path / "C.digests").write_bytes(data)
        with pytest.raises(Malformed):
            load_committed(out)
    (tmp_path / "C.digests").unlink()
    with pytest.raises(UsageError, match="no such file"):
        load_committed(out)
