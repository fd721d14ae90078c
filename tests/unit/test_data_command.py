"""`pot data` on the command line: exit codes, what goes to which stream, and that no content is ever shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attest.cli.main import main

SECRET = "a very private sentence"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("train.jsonl", [f"{SECRET} {number}" for number in range(50)])
    write("out.jsonl", [f"elsewhere {number}" for number in range(9)])
    write("in.jsonl", ["elsewhere", f"{SECRET} 3", f"{SECRET} 4"])
    for name, flags in (("train", []), ("out", ["--as-exclusion"]), ("in", ["--as-exclusion"])):
        assert main(["data", "commit", f"{name}.jsonl", "--view", "json/1", "--out", f"{name}.json", *flags]) == 0
    return tmp_path


def write(name: str, texts: list[str]) -> None:
    Path(name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_commit_prints_one_json_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["data", "commit", "train.jsonl", "--view", "json/1", "--out", "again.json", "--json"]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert (value["records"]["count"], value["set"]["count"], value["role"]) == ("50", "50", "training")
    assert captured.err == ""
    assert (folder / "again.json").read_bytes() == (folder / "train.json").read_bytes()
    assert (folder / "again.digests").stat().st_size == 1600


def test_exclude_writes_the_file_when_x_is_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["data", "exclude", "train.json", "out.json", "--out", "P", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["excluded"], value["overlap"], value["records"]) == (True, "0", "9")
    assert (folder / "P").stat().st_size == int(value["bytes"])


def test_overlap_is_exit_1_a_count_and_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["data", "exclude", "train.json", "in.json", "--out", "P"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "2\n"
    assert SECRET not in captured.out + captured.err
    assert not (folder / "P").exists()
    assert main(["data", "exclude", "train.json", "in.json", "--out", "P", "--list"]) == 1
    assert capsys.readouterr().out == "2\n1\n2\n"
    assert main(["data", "exclude", "train.json", "in.json", "--out", "P", "--list", "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value == {"excluded": False, "overlap": "2", "records": "3", "indices": ["1", "2"]}


def test_query_tells_in_from_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("one.jsonl", [f"{SECRET} 7"])
    write("none.jsonl", ["nowhere"])
    capsys.readouterr()
    assert main(["data", "query", "train.json", "--record", "one.jsonl"]) == 0
    assert capsys.readouterr().out.startswith("in: index 7 of 50 records")
    assert main(["data", "query", "train.json", "--record", "none.jsonl", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["member"] is False
    assert SECRET not in captured.out + captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["commit", "absent.jsonl", "--view", "json/1", "--out", "C.json"],
        ["commit", "train.jsonl", "--view", "text/9", "--out", "C.json"],
        ["commit", "train.jsonl", "--view", "pixels/1", "--out", "C.json"],
        ["commit", "train.jsonl", "--view", "json/1", "--out", "train.jsonl"],
        ["commit", "train.jsonl", "--view", "json/1", "--out", "C.json", "--workers", "0"],
        ["commit", "train.jsonl", "--view", "json/1"],
        ["exclude", "train.json", "absent.json", "--out", "P"],
        ["exclude", "train.json", "train.json", "--out", "P"],
        ["exclude", "out.json", "out.json", "--out", "P"],
        ["exclude", "train.json", "out.json", "--out", "train.digests"],
        ["exclude", "train.jsonl", "out.json", "--out", "P"],
        ["exclude", "train.digests", "out.json", "--out", "P"],
        ["exclude", "link.json", "out.json", "--out", "P"],
        ["query", "train.json", "--record", "train.jsonl"],
        ["query", "train.json", "--record", "absent"],
        ["query", "train.json", "--record", "."],
        ["query", ".", "--record", "train.jsonl"],
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (folder / "link.json").symlink_to(folder / "train.json")
    before = (folder / "train.jsonl").read_bytes()
    capsys.readouterr()
    assert main(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pot: ")
    assert captured.err.count("\n") == 1
    assert SECRET not in captured.err
    assert (folder / "train.jsonl").read_bytes() == before


@pytest.mark.parametrize("bend", ["truncated", "binary", "version", "duplicate", "huge", "list"])
def test_a_bent_commitment_is_exit_2(folder: Path, capsys: pytest.CaptureFixture[str], bend: str) -> None:
    path, digests = folder / "train.json", folder / "train.digests"
    data = path.read_bytes()
    if bend == "truncated":
        path.write_bytes(data[:-5])
    elif bend == "binary":
        path.write_bytes(b"\x80\x04\x00\xff" * 9)
    elif bend == "version":
        path.write_bytes(data.replace(b"commitment/v1", b"commitment/v2"))
    elif bend == "duplicate":
        path.write_bytes(b'{"role":"training",' + data[1:])
    elif bend == "huge":
        path.write_bytes(b" " * (17 << 20))
    else:
        digests.write_bytes(digests.read_bytes()[::-1])
    capsys.readouterr()
    assert main(["data", "exclude", "train.json", "out.json", "--out", "P"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["commit"], ["exclude"], ["query"]])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main(["data", *command, "--help"]) == 0
    assert "pot data" in capsys.readouterr().out.partition("Example")[2]
