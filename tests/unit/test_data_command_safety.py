"""`pot data` never answers falsely for want of a key, writes over what it reads, or takes shards for texts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attest.cli.main import main

POT = str(Path(sys.executable).with_name("pot"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("t.jsonl", [f"text {number} of the training data" for number in range(30)])
    write("one.jsonl", ["text 3 of the training data"])
    for key in ("h.key", "other.key"):
        assert main(["data", "key", key]) == 0
    assert main(commit("t.jsonl", "t.json")) == 0
    assert main(commit("t.jsonl", "h.json", "--key-file", "h.key")) == 0
    return tmp_path


def write(name: str, texts: list[str]) -> None:
    Path(name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def commit(source: str, out: str, *more: str) -> list[str]:
    return ["data", "commit", source, "--view", "text/1", "--out", out, *more]


def test_hidden_leaves_are_asked_with_their_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["data", "query", "h.json", "--record", "one.jsonl"]
    assert main([*ask, "--key-file", "h.key"]) == 0
    assert main(ask) == 2
    assert "needs its hiding key" in capsys.readouterr().err
    assert main([*ask, "--key-file", "other.key"]) == 2
    assert "hidden under another key" in capsys.readouterr().err
    assert main(["data", "query", "t.json", "--record", "one.jsonl", "--key-file", "h.key"]) == 2
    assert main(["data", "portrait", "h.json", "--out", "h.portrait"]) == 0
    ask = ["data", "query", "h.portrait", "--record", "one.jsonl"]
    assert main(ask) == 2
    assert main([*ask, "--key-file", "h.key"]) == 3
    assert "settled by the commitment and its listing" in capsys.readouterr().err
    assert main([*ask, "--key-file", "h.key", "--commitment", "h.json"]) == 0


def test_a_key_or_a_listing_is_never_written_over(folder: Path) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    query = ["data", "query", "h.json", "--record", "one.jsonl", "--key-file", "h.key", "--out"]
    compose = ["data", "compose", "h.json", "t.jsonl", "--by", "text", "--key-file", "h.key", "--out"]
    for words in (
        [*query, "h.key"], [*query, "h.digests"], [*compose, "h.key"], [*compose, "h.digests"],
        ["data", "portrait", "t.json", "--out", "t.digests"], commit("one.jsonl", "t.digests"),
        commit("one.jsonl", "t"),
    ):  # fmt: skip
        assert main(words) == 2, words
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_stray_file_does_not_make_texts_of_shards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "shards").mkdir()
    (folder / "t.jsonl").rename(folder / "shards" / "t.jsonl")
    (folder / "shards" / "README.md").write_text("about these shards")
    assert main(commit("shards", "s.json")) == 2
    assert "holds t.jsonl of the container jsonl beside files of others" in capsys.readouterr().err
    assert main(commit("shards", "s.json", "--container", "text")) == 0
    assert "2, read as plain files, each a record" in capsys.readouterr().out


def test_nothing_is_written_where_data_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "shards").mkdir()
    (folder / "t.jsonl").rename(folder / "shards" / "t.jsonl")
    assert main(commit("shards", "shards/t.json")) == 2
    assert "would be read as data the next time" in capsys.readouterr().err
    assert [path.name for path in (folder / "shards").iterdir()] == ["t.jsonl"]


def test_a_folder_of_the_work_folders_name_is_left_alone(folder: Path) -> None:
    (folder / "n.json.work").mkdir()
    (folder / "n.json.work" / "precious.list").write_text("mine")
    assert main(commit("t.jsonl", "n.json")) == 2
    assert (folder / "n.json.work" / "precious.list").read_text() == "mine"


def test_a_name_that_nobody_can_read_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"a\xff.jsonl", b"a\nb.jsonl"):
        os.rename(b"one.jsonl", name)
        assert main(commit(os.fsdecode(name), "n.json")) == 2
        assert "file name" in capsys.readouterr().err
        os.rename(name, b"one.jsonl")


def test_records_too_short_for_a_key_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("x.jsonl", ["short", "and this one is long enough to be looked for, with all its words " * 2])
    for name, role in (("t", []), ("x", ["--as-exclusion"])):
        words = ["data", "commit", f"{name}.jsonl", "--view", "winnow50/1", "--out", f"{name}50.json", *role]
        assert main(words) == 0
    capsys.readouterr()
    assert main(["data", "exclude", "t50.json", "x50.json", "--out", "p"]) == 0
    told = capsys.readouterr().out
    assert "have a run of 50 or more bytes of normalised text in common" in told
    assert "1 of X's records are too short" in told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_workers_end_with_a_parent_that_is_ended(folder: Path, number: signal.Signals, code: int) -> None:
    (folder / "data").mkdir()
    for name in range(4):
        write(f"data/{name}.jsonl", [f"{name} {line} " * 9 for line in range(40_000)])
    words = [POT, *commit("data", "d.json", "--workers", "2")]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(workers := children(process.pid)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait() == code
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:  # it ended meanwhile
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.append(int(path.parent.name))
    return found
