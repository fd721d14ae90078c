"""Commands that are ended from outside: by a signal, tidied up; by SIGKILL, nothing goes on and nothing stays."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pot.audit.replaying.leases import leased_folder, remove_abandoned
from pot.audit.replaying.sandbox import Ended, Limits, run_limited
from pot.audit.replaying.spread import replays

_COMMAND = """
import sys, time
from attest.cli import main
def wait(arguments):
    try:
        print("ready", flush=True)
        time.sleep(600)
    finally:
        print("tidied up", flush=True)
main._dispatch = wait
sys.argv = ["pot", "status", "run"]
main.run()
"""
_AUDITOR = """
import sys
from pathlib import Path
from pot.audit.replaying.leases import leased_folder
from pot.audit.replaying.sandbox import Limits, run_limited
class Owner: pass
owner, place = Owner(), Path(sys.argv[1])
leased_folder(place, owner)
program = "import fcntl, time; f = open('held', 'w'); fcntl.flock(f, 2); open('ready', 'w'); time.sleep(600)"
folder = place / "work"
run_limited([sys.executable, "-c", program], folder, {}, Limits(), [], folder / "stderr")
"""


class _Owner:
    pass


def _started(script: str, *words: str, before: Callable[[], Any] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *words], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=before,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_command_that_a_signal_ends_tidies_up_and_says_so(number: signal.Signals, code: int) -> None:
    process = _started(_COMMAND)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out) == (code, "tidied up\n")
    how = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert error == f"pot: {how}; the same command goes on from what was finished, where it keeps that\n"


def test_a_signal_that_is_ignored_stays_so() -> None:
    process = _started(_COMMAND, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143


def test_nothing_goes_on_or_stays_after_an_auditor_that_was_killed(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    process = _started(_AUDITOR, str(tmp_path))
    _until((work / "ready").exists)
    [theirs] = tmp_path.glob("audit-*")
    own = _Owner()
    ours = leased_folder(tmp_path, own)
    assert remove_abandoned(tmp_path) == []  # both are in use
    process.kill()
    process.communicate(timeout=120)
    with (work / "held").open("r+") as held:
        _until(lambda: _free(held.fileno()))  # the replayed program is gone with its auditor
    assert remove_abandoned(tmp_path) == [theirs]
    assert ours.is_dir()
    assert not theirs.exists()


def test_a_folder_is_removed_with_its_owner_and_never_without_a_lease(tmp_path: Path) -> None:
    own = _Owner()
    folder = leased_folder(tmp_path, own)
    (folder / "start.safetensors").write_bytes(b"1")
    (tmp_path / "audit-other").mkdir()  # somebody's, who held no lock on it
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "lock").touch()
    (tmp_path / "audit-link").symlink_to(tmp_path / "linked")
    del own
    assert not folder.exists()
    assert remove_abandoned(tmp_path) == []
    assert (tmp_path / "audit-other").is_dir()
    assert (tmp_path / "linked" / "lock").exists()


def test_what_an_interrupted_removal_left_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = _Owner()
    folder = leased_folder(tmp_path, own)
    (folder / "kept").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # ended before it did anything
        del own
    assert (folder / "lock").exists()
    assert remove_abandoned(tmp_path) == [folder]
    assert not folder.exists()


@dataclass
class _Job:
    """Job 2 runs a program for an hour; job 1 is done as soon as that has begun."""

    index: int
    begun: threading.Event
    folder: Path
    ended: list[Ended]

    def run(self, replayer: Any) -> str:
        if self.index == 1:
            self.begun.wait()
            return "done"
        self.begun.set()
        limits = Limits(seconds=3600)
        self.ended.append(run_limited(["sleep", "3600"], self.folder, dict(os.environ), limits, [], self.folder / "e"))
        return "ended"


def test_replays_that_nobody_waits_for_are_ended(tmp_path: Path) -> None:
    begun, ended = threading.Event(), list[Ended]()
    jobs: Any = [_Job(index, begun, tmp_path, ended) for index in (1, 2)]
    results = replays(jobs, None, workers=2)  # type: ignore[arg-type]
    assert next(results)[1] == "done"  # type: ignore[comparison-overlap]
    results.close()
    assert [item.code for item in ended] == [-signal.SIGKILL]


def _free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(2400):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")
