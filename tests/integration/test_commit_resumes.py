"""A commitment that is interrupted goes on: finished shards are not read again, and the result is the same."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from attest.cli.main import main
from pot.data import commit as committing
from pot.data.commit import commit, load_committed
from pot.data.digest import digest_shard
from pot.errors import Malformed, PotError, Refused

POT = str(Path(sys.executable).with_name("pot"))


def write_shards(folder: Path, shards: int = 4, records: int = 500) -> Path:
    folder.mkdir()
    for number in range(shards):
        lines = (
            json.dumps({"text": f"text {number} of {line} " + "and so on " * (line % 7 + 4)}) + "\n"
            for line in range(records)
        )
        (folder / f"{number}.jsonl").write_text("".join(lines))
    return folder


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []

    def watched(job: Any, **more: Any) -> Any:
        read.append(job.name)
        return digest_shard(job, **more)

    monkeypatch.setattr(committing, "digest_shard", watched)
    return read


@pytest.mark.parametrize("view", ["text/1", "winnow50/1"])
def test_what_was_finished_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: str) -> None:
    data = write_shards(tmp_path / "data")
    expected = commit([data], view).commitment
    good = (data / "2.jsonl").read_bytes()
    (data / "2.jsonl").write_bytes(good + b"{\n")
    read = counted(monkeypatch)
    work = tmp_path / "work"
    with pytest.raises(Malformed, match=r"2\.jsonl line 501"):
        commit([data], view, work=work)
    assert read == ["0.jsonl", "1.jsonl", "2.jsonl"]
    (data / "2.jsonl").write_bytes(good)
    read.clear()
    assert commit([data], view, work=work).commitment == expected
    assert read == ["2.jsonl", "3.jsonl"]


def test_a_changed_file_other_settings_and_damage_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, work = write_shards(tmp_path / "data"), tmp_path / "work"
    commit([data], "text/1", work=work)
    read = counted(monkeypatch)
    (data / "1.jsonl").write_bytes((data / "1.jsonl").read_bytes() + b'{"text": "new"}\n')
    changed = commit([data], "text/1", work=work).commitment
    assert read == ["1.jsonl"]
    assert changed == commit([data], "text/1").commitment
    read.clear()
    commit([data], "text-norm/1", work=work)
    assert len(read) == 4
    cut = sorted(work.glob("*.list"))[0]
    cut.write_bytes(cut.read_bytes()[:-32])
    read.clear()
    assert commit([data], "text-norm/1", work=work).commitment == commit([data], "text-norm/1").commitment
    assert len(read) == 1 + 4
    for entry in work.glob("*.json"):
        entry.write_bytes(b'[["half')
    read.clear()
    commit([data], "text-norm/1", work=work)
    assert len(read) == 4


def test_two_at_once_in_one_work_folder_are_refused(tmp_path: Path) -> None:
    data, work = write_shards(tmp_path / "data"), tmp_path / "work"

    def again(done: int, total: int) -> None:
        with pytest.raises(Refused, match="another commitment is being made there"):
            commit([data], "text/1", work=work)

    commit([data], "text/1", work=work, progress=again)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_on_the_command_line_and_taken_up_again(tmp_path: Path, workers: str) -> None:
    data = write_shards(tmp_path / "data", shards=8, records=12_000)
    out, work = tmp_path / "C.json", tmp_path / "C.json.work"
    words = ["data", "commit", str(data), "--view", "text/1", "--out", str(out), "--workers", workers]
    process = subprocess.Popen(
        [POT, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(work.glob("*.json")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "no shard was finished in a minute"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    (work / f".{'0' * 32}.json.abcd_123").touch()  # as a process leaves it that is killed between write and rename
    kept = {entry.name: entry.stat().st_mtime_ns for entry in work.glob("[0-9a-f]*.json")}
    finished = [entry for entry in work.glob("*.list") if f"{entry.stem}.json" in kept]
    before = {entry.name: entry.stat().st_mtime_ns for entry in finished}
    saved: dict[str, int] = {}

    def look(done: int, total: int) -> None:
        saved.update({entry.name: entry.stat().st_mtime_ns for entry in work.glob("*.list")})

    commit([data], "text/1", work=work, progress=look)
    assert before
    assert {name: saved[name] for name in before} == before  # written once
    assert main(words) == 0
    assert not work.exists()
    assert load_committed(out).commitment == commit([data], "text/1").commitment


def test_a_full_disk_is_one_sentence_and_leaves_no_commitment(tmp_path: Path) -> None:
    data, out = write_shards(tmp_path / "data", shards=2, records=9000), tmp_path / "C.json"

    def limited() -> None:  # a file that would grow beyond it: EFBIG, as a full disk gives ENOSPC
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = [POT, "data", "commit", str(data), "--view", "text/1", "--out", str(out)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, preexec_fn=limited)
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert "cannot be written: File too large" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not out.exists()
    assert not (tmp_path / "C.digests").exists()


def test_no_record_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(PotError, match="holds no record"):
        commit([tmp_path / "empty.jsonl"], "text/1")


def test_an_interruption_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    data, work = write_shards(tmp_path / "data", shards=8, records=20_000), tmp_path / "C.json.work"
    words = [POT, "data", "commit", str(data), "--view", "text/1", "--out", str(tmp_path / "C.json")]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(work.glob("*.json")):
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline, "no shard was finished in a minute"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    told, complaint = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "")
    assert complaint == "pot: interrupted; the same command goes on from what was finished, where it keeps that\n"
    assert not (tmp_path / "C.json").exists()
