"""Reading and writing at the edges: pipes, devices, files that lie about their size, JSON made to take forever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pot.canonical import Document, parse, read_file, write_file
from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, UsageError


class Small(Document):
    """A document with one field."""

    name: str


def test_an_unterminated_string_is_passed_over_once() -> None:
    """A megabyte of backslashes and quotes took hours when each quote began a search to the end."""
    script = (
        "from pot.canonical import parse\nfrom pot.errors import Malformed\n"
        "for text in (b'\\\\\"', b'\"\\\\', b'\"', b'\\\\', b'[\"\\\\\"'):\n"
        "    try:\n        parse(text * (1 << 19), what='x', limit=1 << 30)\n"
        "    except Malformed:\n        pass\n    else:\n        raise SystemExit('accepted')\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_brackets_inside_strings_are_no_depth() -> None:
    text = b'{"a":"' + b"[" * 99 + b'\\"' + b"{" * 99 + b'"}'
    assert parse(text, what="x") == {"a": "[" * 99 + '"' + "{" * 99}
    with pytest.raises(LimitExceeded, match="nested deeper"):
        parse(b'["a"' + b",[" * 40 + b"]" * 41, what="x")


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN", b"Infinity", b"-Infinity", b"9" * 400])
def test_numbers_that_no_reader_keeps(number: bytes) -> None:
    with pytest.raises(Malformed, match=r"^x: "):
        parse(b'{"a":' + number + b"}", what="x")


def test_a_long_name_does_not_make_a_long_sentence() -> None:
    with pytest.raises(Malformed) as caught:
        Small.from_value({"name": "n", "x" * 100_000: 1}, what="x")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("what", ["pipe", "folder", "link", "zero", "absent", "below a file"])
def test_reading_what_is_no_file_is_a_usage_error(tmp_path: Path, what: str) -> None:
    path = tmp_path / "p"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "link":
        (tmp_path / "real").write_bytes(b"x")
        path.symlink_to(tmp_path / "real")
    elif what == "zero":
        path = Path("/dev/zero")
    elif what == "below a file":
        (tmp_path / "p").write_bytes(b"")
        path = tmp_path / "p" / "q"
    with pytest.raises(UsageError, match=str(path)):
        read_file(path, limit=10)


def test_a_file_that_lies_about_its_size_is_read_whole(tmp_path: Path) -> None:
    if Path("/proc/version").exists():  # says 0 bytes
        assert len(read_file(Path("/proc/version"), limit=10_000)) > 20
    (tmp_path / "f").write_bytes(b"x" * 11)
    assert read_file(tmp_path / "f", limit=11) == b"x" * 11
    with pytest.raises(LimitExceeded, match="limit of 10 bytes"):
        read_file(tmp_path / "f", limit=10)


def test_a_sparse_giant_costs_nothing(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(LimitExceeded):
        read_file(tmp_path / "f", limit=1 << 20)


@pytest.mark.parametrize("what", ["pipe", "folder", "link to a device", "link to a file", "link to nothing"])
def test_writing_never_replaces_what_is_no_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "p"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link to a device": "/dev/null", "link to a file": "/etc/hostname"}.get(what, "nothing"))
    before = os.lstat(path)
    with pytest.raises(UsageError, match=r"name (a|the) file"):
        write_file(path, b"x")
    assert os.lstat(path).st_ino == before.st_ino
    assert os.listdir(tmp_path) == ["p"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        write_file(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        write_file(Path("/proc/pot/f"), b"new")
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        write_file(tmp_path / "a\0b", b"new")
