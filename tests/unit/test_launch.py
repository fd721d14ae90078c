"""The launcher of a replay's processes: their variables, and how one failure ends all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pot.audit.replaying import sandbox
from pot.audit.replaying.replay import Replayer
from pot.errors import UsageError
from pot.recording.launch import main, most_processes
from pot.recording.precommit import Layout

ROOT = Path(__file__).parents[2]


def _run(folder: Path, count: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-P", "-m", "pot.recording.launch", count, "script.py", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False,
                          timeout=300)  # fmt: skip


def test_every_process_knows_its_place(tmp_path: Path) -> None:
    script = (
        "import json, os, sys; r = os.environ['RANK']; open(r, 'w').write(json.dumps([dict(os.environ), sys.argv]))"
    )
    assert _run(tmp_path, "3", script, "--steps", "4").returncode == 0
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert [item[0]["LOCAL_RANK"] for item in found] == ["0", "1", "2"]
    assert {item[0]["WORLD_SIZE"] for item in found} == {"3"}
    assert {item[0]["MASTER_ADDR"] for item in found} == {"127.0.0.1"}
    assert len({item[0]["MASTER_PORT"] for item in found}) == 1
    assert [item[1] for item in found] == [["script.py", "--steps", "4"]] * 3


def test_the_first_failure_ends_all_and_is_the_exit_code(tmp_path: Path) -> None:
    script = "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit(7)\ntime.sleep(6000)"
    assert _run(tmp_path, "3", script).returncode == 7
    killed = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '0' else None"
    assert _run(tmp_path, "2", killed).returncode == 128 + 9


@pytest.mark.parametrize("arguments", [[], ["2"], ["0", "s.py"], ["x", "s.py"], ["-1", "s.py"], ["99999", "s.py"]])
def test_other_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        main(arguments)


def test_a_run_of_more_processes_than_this_machine_starts_is_refused(recorded: Any) -> None:
    count = most_processes() + 1
    with pytest.raises(UsageError, match=f"1 to {count - 1} can be started on this machine"):
        main([str(count), "s.py"])
    replay = _distributed(recorded, count).initial()
    assert (replay.outcome, replay.detail) == (
        "REFUSED",
        f"the run has {count} processes; this machine starts at most {count - 1} side by side",
    )
    assert _distributed(recorded, count - 1).missing is None


def test_the_processes_of_a_run_share_the_memory_of_one(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[sandbox.Limits] = []

    def run_limited(*arguments: Any, **_: Any) -> sandbox.Ended:
        seen.append(arguments[3])
        return sandbox.Ended(1, "", "none")

    monkeypatch.setattr("pot.audit.replaying.replay.run_limited", run_limited)
    _distributed(recorded, 4).initial()
    assert seen[0].memory_bytes == sandbox.Limits().memory_bytes // 4


def _distributed(run: Any, processes: int) -> Replayer:
    """A replayer of the run, as if its pre-commitment named this number of processes."""
    layout = Layout(processes=str(processes), sharding="replicated")
    precommit = run.precommit.model_copy(update={"layout": layout})
    return Replayer(run.run_dir, precommit, "00" * 32, [run.folder / "train.jsonl"], run.folder)


TALK = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=20).sendall(b"x")
sys.exit(0 if server.accept()[0].recv(1) == b"x" else 3)
"""


def test_behind_every_wall_processes_hear_each_other_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strongest = sandbox.isolation()
    walls = ["none", "network", "full"]
    for wall in walls[: walls.index(strongest) + 1]:
        monkeypatch.setattr(sandbox, "isolation", lambda wall=wall: wall)
        place, seen = tmp_path / wall, tmp_path / f"{wall}-seen"
        place.mkdir()
        seen.mkdir()
        for loopback in (True, False):
            ended = sandbox.run_limited(
                [sys.executable, "-c", TALK], place, {"PATH": "/usr/bin:/bin"}, sandbox.Limits(seconds=120), [],
                place / "errors", seen, loopback=loopback,
            )  # fmt: skip
            assert (ended.code == 0) == (loopback or wall == "none"), (wall, ended)
            assert loopback or wall == "none" or "unreachable" in ended.last_words
