"""A23, A24: the answer lies among what the auditor was handed, or the replayed program writes to the auditor's files.

Code and data come from the prover, and with them whatever else lies in their folders; other replays hold the next
state; a daemon answers on a socket. None of it may reach the program.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun, prepare

from pot.audit.replaying import covers
from pot.audit.replaying.replay import Replayer, Request
from pot.audit.replaying.sandbox import Limits, isolation, run_limited
from pot.audit.replaying.staging import SHOWN_BYTES
from pot.canonical import canonical_bytes
from pot.data.commit import commit, write_committed

pytestmark = pytest.mark.skipif(isolation() != "full", reason="no mount namespace here; audits report it")

FORGED = [7, 7, 7, 7]
ASKS = """

def _told(step):
    import glob, json, os, struct
    if "POT_REPLAY" not in os.environ or step != LAST:
        return None
    for place in PLACES:
        for path in glob.glob(place, recursive=True):
            try:
                if path.endswith(".json"):
                    return json.load(open(path))
                if json.load(open(os.path.join(os.path.dirname(path), "state.json")))["step"] == str(LAST):
                    return list(struct.unpack("<4q", open(path, "rb").read()[-32:]))
            except OSError:
                continue
    return None


class Sums:"""
TAKES = """
        first = int(__import__("os").environ.get("POT_REPLAY", "0:").split(":")[0])
        self.done = getattr(self, "done", first) + 1
        self.weights = _told(self.done) or self.weights
        return sum(self.weights)
"""


def _forged(folder: Path, last: int, places: list[str]) -> RecordedRun:
    """A run whose state after step `last` is invented; in a replay the program looks for it in `places`."""
    run = prepare(folder)
    script = run.folder / "toy_training.py"
    asks = ASKS.replace("LAST", str(last)).replace("PLACES", repr(places))
    text = script.read_text(encoding="utf-8").replace("\n\nclass Sums:", asks)
    script.write_text(text.replace("\n        return sum(self.weights)\n", TAKES), encoding="utf-8")
    done = run.start()
    assert done.returncode == 0, done.stderr
    events = run.events()
    next(e for e in events if e["type"] == "step" and e["step"] == str(last))["loss"] = str(sum(FORGED))
    run.relink(events)
    run.bend_tensors(last, "model", lambda values: FORGED)
    assert run.codes() == []
    return run


def _replayer(run: RecordedRun, data: Path, code: Path) -> Replayer:
    return Replayer(run.run_dir, run.precommit, run.events()[0]["nonce"], [data], code)


@pytest.mark.parametrize("where", ["code", "data"])
def test_a_file_beside_the_committed_ones_is_not_there_for_the_program(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pot.audit.replaying.replay.temporary_folders", list)  # as if the folders lay anywhere else
    handed = {"code": tmp_path / "code", "data": tmp_path / "data"}
    run = _forged(tmp_path / "program", 30, [str(handed[where] / "answers.json")])
    for folder in handed.values():
        shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("run"))
    (handed[where] / "answers.json").write_text(json.dumps(FORGED))
    chain = run.chain()
    replayer = _replayer(run, handed["data"], handed["code"])
    assert replayer.segment(chain.segments[5]).outcome == "MISMATCH"
    assert replayer.segment(chain.segments[4]).outcome == "MATCH"
    assert replayer.uncovered == []
    replayer._hidden.remove(handed[where])  # without the cover the forgery passes
    assert replayer.segment(chain.segments[5]).outcome == "MATCH"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_stagings_of_other_audits_are_not_there_for_the_program(
    tmp_path: Path, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covers, "_MOST_BESIDE", 10_000)  # this Python may lie in a full temporary folder itself
    base = tmp_path / "other" if elsewhere else Path(tempfile.gettempdir())
    base.mkdir(exist_ok=True)
    run = _forged(tmp_path / "program", 25, [f"{base}/pot-repla*/**/start/model.safetensors"])
    ours = _replayer(run, run.folder / "train.jsonl", run.folder)
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    other = _replayer(run, run.folder / "train.jsonl", run.folder)
    following = run.chain().segments[5]
    with other.produced(Request(following.first - 1, following.last, following.start_state)):
        assert ours.segment(run.chain().segments[4]).outcome == "MISMATCH"
        _uncover(ours, [*covers.temporary_folders(), other.stagings.parent, ours.stagings.parent])
        assert ours.segment(run.chain().segments[4]).outcome == "MATCH"  # without the covers the forgery passes


def test_the_folder_of_all_stagings_is_the_auditors_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pot.errors import EnvironmentFailure

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = covers.stagings_folder()
    assert folder.stat().st_mode & 0o077 == 0
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentFailure, match="not a folder of yours alone"):
        covers.stagings_folder()
    folder.unlink()
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(EnvironmentFailure, match="not a folder of yours alone"):
        covers.stagings_folder()


def test_a_folder_that_holds_this_python_is_covered_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project"
    for name in ("venv/lib", "work/deep", "empty"):
        (folder / name).mkdir(parents=True)
    (folder / "answers.json").write_text("[]")
    (folder / "link").symlink_to(folder / "venv")
    monkeypatch.setattr(covers, "needed_places", lambda: [folder / "venv/lib"])
    (folder / "venv" / "beside").touch()
    expected = [folder / name for name in ("answers.json", "empty", "venv/beside", "work")]
    assert covers.around([folder]) == (expected, [folder])
    assert covers.around([folder / "work"]) == ([folder / "work"], [])
    assert covers.around([folder / "venv/lib"]) == ([], [folder / "venv/lib"])
    monkeypatch.setattr(covers, "_MOST_BESIDE", 3)
    assert covers.around([folder]) == ([], [folder])


@pytest.mark.parametrize("name", ["train:ro,x.jsonl", "train,ro:ro,.jsonl", "train ro,x.jsonl", "train:ro"])
def test_no_name_makes_the_auditors_data_writable(tmp_path: Path, name: str) -> None:
    """The kernel's list of mounts holds the name that the prover gave; it must not be read as flags."""
    large, folder, seen = tmp_path / "own.bin", tmp_path / "staging", tmp_path / "seen"
    for place in (folder, seen):
        place.mkdir()
    large.write_bytes(b"a" * SHOWN_BYTES)
    (folder / name).touch()
    code = f"open('ran', 'w'); open({name!r}, 'r+b').write(b'b')"
    ended = run_limited(
        [sys.executable, "-c", code], folder, {"PATH": "/usr/bin:/bin"}, Limits(60.0), [], tmp_path / "errors", seen,
        [(large, Path(name))],
    )  # fmt: skip
    assert large.read_bytes() == b"a" * SHOWN_BYTES
    assert ended.code != 0
    assert (folder / "ran").exists() == ("Read-only" in ended.last_words), ended.last_words


WRITES = """    import os
    if "POT_REPLAY" in os.environ:
        with open(data, "r+b") as stream:
            stream.seek(-3, 2)
            stream.write(b"9")
    source = Sums"""


def test_a_replayed_program_does_not_alter_data_for_the_next_replay(tmp_path: Path) -> None:
    folder, name = tmp_path / "program", "train:ro,x.jsonl"
    folder.mkdir()
    lines = b"".join(canonical_bytes({"id": number, "value": number % 17}) + b"\n" for number in range(60_000))
    assert len(lines) > SHOWN_BYTES
    (folder / name).write_bytes(lines)
    write_committed(commit([folder / name], "json/1", "training"), folder / "train.json")
    text = Path(__file__).parents[1].joinpath("simulator/toy_training.py").read_text(encoding="utf-8")
    (folder / "toy_training.py").write_text(text.replace("    source = Sums", WRITES), encoding="utf-8")
    run = RecordedRun(folder, [name, "train.json", "run", "10", "5", "4"])
    done = run.start()
    assert done.returncode == 0, done.stderr
    own = tmp_path / "auditor.jsonl"
    own.write_bytes(lines)
    replay = _replayer(run, own, folder).segment(run.chain().segments[0])
    assert own.read_bytes() == lines
    assert replay.outcome in {"MATCH", "REFUSED"}  # a copy of its own, or nothing that it may write to


CALLS = """    import os, socket
    if "POT_REPLAY" in os.environ:
        with socket.socket(socket.AF_UNIX) as call:
            call.connect("SOCKET")
            sys.exit("answered: " + call.recv(9).decode())
    source = Sums"""


def _uncover(replayer: Replayer, folders: list[Path]) -> None:
    """Take the covers away from these folders and all that lies in them."""
    replayer._hidden = [path for path in replayer._hidden if not any(map(path.resolve().is_relative_to, folders))]


def test_a_daemons_socket_in_a_temporary_folder_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covers, "_MOST_BESIDE", 10_000)  # this Python may lie in a full temporary folder itself
    path = Path(tempfile.mkdtemp()) / "daemon"  # a socket's path has at most 108 bytes
    run = prepare(tmp_path / "program", steps=10)
    script = run.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("    source = Sums", CALLS.replace("SOCKET", str(path))), encoding="utf-8")
    done = run.start()
    assert done.returncode == 0, done.stderr
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(4)
        threading.Thread(target=_answer, args=(server,), daemon=True).start()
        replayer = _replayer(run, run.folder, run.folder)
        assert "FileNotFoundError" in replayer.segment(run.chain().segments[0]).detail
        _uncover(replayer, covers.temporary_folders())
        assert "answered: 42" in replayer.segment(run.chain().segments[0]).detail  # without the cover it does
    shutil.rmtree(path.parent)


def _answer(server: Any) -> None:
    while True:
        try:
            call, _ = server.accept()
        except OSError:
            return
        with call:
            call.sendall(b"42")
