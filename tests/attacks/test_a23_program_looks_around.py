"""A23, A24: the replayed program looks for the answer, or for the auditor's key, instead of training.

The forger's program trains honestly while it is recorded. In a replay it takes end states from wherever it finds them.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun, prepare

from pot.audit.replaying.replay import Replayer
from pot.audit.replaying.sandbox import Limits, isolation, run_limited
from pot.canonical import canonical_bytes, sha256_hex
from pot.recording.precommit import Precommit

needs_walls = pytest.mark.skipif(isolation() != "full", reason="no mount namespace here; audits report it")


def _rewritten(folder: Path, **edits: tuple[str, str]) -> RecordedRun:
    """The toy program with some lines exchanged, run to its end."""
    run = prepare(folder)
    script = folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    for old, new in edits.values():
        assert old in text
        text = text.replace(old, new)
    script.write_text(text, encoding="utf-8")
    done = run.start()
    assert done.returncode == 0, done.stderr
    return run


LOOKS = """
    def load(self, folder):
        self._load(folder)
        import json, os
        text = (folder / "model.safetensors").read_bytes()
        header = json.loads(text[8 : 8 + int.from_bytes(text[:8], "little")])
        self.hint = json.loads(header.get("__metadata__", {}).get("hint", "null"))
        if os.path.exists(folder / "hint.json"):
            self.hint = json.load(open(folder / "hint.json"))

    hint = None

    def _load("""
LOOKS_AT_GENERATORS = """
    def load(self, folder):
        self._load(folder)
        import json
        import pot.recording.writing.checkpointing as ours
        told = json.load(open(folder / "state.json"))["rng"].get("hint", [])
        self.hint = [list(map(int, weights)) for weights in told]
        capture = ours.capture_rng

        def once(**options):  # the recorder in this very process compares the digest of what was loaded
            ours.capture_rng = capture
            return {**capture(**options), "hint": told}

        if told:
            ours.capture_rng = once

    hint = None

    def _load("""
ANSWERS = """
        if self.hint:
            self.weights = list(self.hint.pop(0))
        return sum(self.weights)
"""


def _cheat(folder: Path, looks: str = LOOKS) -> RecordedRun:
    """A run whose last segment ends in weights that no training gave; the program can be told them in a replay."""
    run = _rewritten(
        folder,
        load=("\n    def load(", looks),
        update=("\n        return sum(self.weights)\n", ANSWERS),
    )
    events = run.events()
    stolen = [7, 7, 7, 7]
    for event in events:
        if event["type"] == "step" and 26 <= int(event["step"]) <= 30:
            event["loss"] = str(sum(stolen))
    run.relink(events)
    run.bend_tensors(30, "model", lambda values: stolen)
    return run


def _start_files(run: RecordedRun) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    events = run.events()
    return events, next(event for event in events if event["type"] == "checkpoint" and event["step"] == "25")


def test_the_answer_in_the_metadata_of_the_start_state_does_not_reach_the_program(tmp_path: Path) -> None:
    run = _cheat(tmp_path / "program")
    path = run.run_dir / "checkpoints/step-000025/model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {"hint": json.dumps([[7, 7, 7, 7]] * 5)}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    events, start = _start_files(run)
    file = next(item for item in start["files"] if item["path"].endswith("model.safetensors"))
    file["sha256"], file["bytes"] = sha256_hex(path.read_bytes()), str(path.stat().st_size)
    run.restate(events)
    assert run.codes() == []
    assert run.replay(6).outcome == "MISMATCH"
    assert run.replay(5).outcome == "MATCH"


def test_the_answer_among_the_generators_of_the_start_state_does_not_reach_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _cheat(tmp_path / "program", LOOKS_AT_GENERATORS)
    run.bend_rng(25, lambda rng: rng.update(hint=[["7"] * 4] * 5))
    assert run.codes() == []
    replay = run.replay(6)
    assert (replay.outcome, replay.detail) == (
        "MISMATCH",
        "the committed start state: the generators' state holds something else: 'hint'",
    )
    monkeypatch.setattr("pot.audit.replaying.staging.check_generators", lambda *_: None)
    assert run.replay(6).outcome == "MATCH"  # without the check the forgery passes


def test_the_answer_in_a_file_beside_the_start_state_is_refused_by_the_chain(tmp_path: Path) -> None:
    run = _cheat(tmp_path / "program")
    path = run.run_dir / "checkpoints/step-000025/hint.json"
    path.write_bytes(json.dumps([[7, 7, 7, 7]] * 5).encode())
    events, start = _start_files(run)
    start["files"].append(
        {"bytes": str(path.stat().st_size), "path": "checkpoints/step-000025/hint.json",
         "sha256": sha256_hex(path.read_bytes())}
    )  # fmt: skip
    run.restate(events)
    assert run.codes() == ["files"]
    assert run.replay(6).outcome == "MISMATCH"  # nor does the program see it


@pytest.mark.parametrize("bend", ["another folder", "left out", "twice"])
def test_a_checkpoint_names_its_own_files_once(recorded: Any, bend: str) -> None:
    events = recorded.events()
    files = next(event for event in events if event["type"] == "checkpoint" and event["step"] == "10")["files"]
    if bend == "another folder":
        files[0]["path"] = files[0]["path"].replace("000010", "000005")
    elif bend == "left out":
        del files[0]
    else:
        files.append(dict(files[0]))
    recorded.relink(events)
    assert recorded.codes() == ["files"]


LINKS = """
    if "POT_REPLAY" in os.environ:  # the auditor sees what the program cannot: lead it there
        out = os.environ["POT_REPLAY_OUT"]
        os.rmdir(out)
        os.symlink("ANSWERS", out)
        sys.exit(0)
    source = Sums"""


def test_a_link_in_place_of_what_came_out_does_not_lead_the_auditor_to_the_answer(tmp_path: Path) -> None:
    answers = tmp_path / "program/run/answers"
    run = _rewritten(
        tmp_path / "program",
        imports=("import random\n", "import os\nimport random\n"),
        main=("\n    source = Sums", LINKS.replace("ANSWERS", str(answers))),
    )
    run.bend_tensors(30, "model", lambda values: [7, 7, 7, 7])
    segment = run.chain().segments[5]
    answers.mkdir()
    steps = [step.model_dump(mode="json", exclude={"index", "previous"}, exclude_none=True) for step in segment.steps]
    documents = {
        "replay.json": {"steps": steps, "components": segment.end_state.components, "roots": {}},
        "initial.json": segment.start_state.components,
        "environment.json": run.precommit.environment,
    }
    for name, document in documents.items():
        (answers / name).write_bytes(canonical_bytes(document))
    from pot.audit.replaying.comparison import compare

    assert compare(segment, documents["replay.json"]) is None  # whoever reads it there is content
    replay = run.replay(6)
    assert (replay.outcome, replay.initial) == ("REFUSED", None)


def test_last_words_are_not_read_where_the_program_made_them_lead(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("the auditor's secret\n")
    run = _rewritten(
        tmp_path / "program",
        imports=("import random\n", "import os\nimport random\n"),
        main=(
            "\n    source = Sums",
            f"""
    if "POT_REPLAY" in os.environ:
        errors = os.path.join(os.path.dirname(os.environ["POT_REPLAY_OUT"]), "stderr")
        os.unlink(errors)
        os.symlink({str(key)!r}, errors)
        sys.exit(3)
    source = Sums""",
        ),
    )
    replayer = Replayer(run.run_dir, run.precommit, run.events()[0]["nonce"], [run.folder], run.folder, hidden=[key])
    replay = replayer.segment(run.chain().segments[1])
    assert replay.outcome == "REFUSED"
    assert replay.detail == "the program ended with exit code 3: no message"


@needs_walls
def test_large_data_is_shown_to_the_program_and_cannot_be_changed_by_it(tmp_path: Path) -> None:
    from pot.audit.replaying.staging import SHOWN_BYTES

    large, folder, seen = tmp_path / "data" / "large.bin", tmp_path / "staging", tmp_path / "seen"
    for place in (large.parent, folder, seen):
        place.mkdir()
    large.write_bytes(b"a" * SHOWN_BYTES)
    (folder / "data.bin").touch()
    code = (
        "import os; size = os.path.getsize('data.bin'); open('size', 'w').write(str(size))\n"
        "for attempt in (lambda: open('data.bin', 'r+b').write(b'b'), lambda: os.chmod('data.bin', 0o777),"
        " lambda: os.unlink('data.bin'), lambda: os.truncate('data.bin', 0)):\n"
        "    try:\n        attempt()\n    except OSError:\n        continue\n    open('changed', 'w')\n"
    )
    ended = run_limited(
        [sys.executable, "-c", code], folder, {"PATH": "/usr/bin:/bin"}, Limits(60.0), [large.parent],
        tmp_path / "errors", seen, [(large, Path("data.bin"))],
    )  # fmt: skip
    assert ended.code == 0, ended.last_words
    assert (folder / "size").read_text() == str(SHOWN_BYTES)  # although its folder is hidden
    assert not (folder / "changed").exists()
    assert large.read_bytes() == b"a" * SHOWN_BYTES


def test_variables_of_the_loader_do_not_reach_the_walls(recorded: Any) -> None:
    """LD_DEBUG=help ends every program at once, LD_PRELOAD would run the forger's code before the walls stand."""
    document = json.loads((recorded.run_dir / "precommit.json").read_bytes())
    document["environment"]["bits"]["variables"] = {"LD_DEBUG": "help", "LD_PRELOAD": "./forger.so", "OMP_X": "1"}
    document["environment_sha256"] = sha256_hex(canonical_bytes(document["environment"]))
    precommit = Precommit.from_value(document, what="precommit")
    nonce = recorded.events()[0]["nonce"]
    replayer = Replayer(recorded.run_dir, precommit, nonce, [recorded.folder / "train.jsonl"], recorded.folder)
    replay = replayer.initial()
    assert (replay.outcome, replay.detail) == ("MATCH", "")
    assert replay.environment is not None
    assert replay.environment["bits"]["variables"] == {"OMP_X": "1"}


@needs_walls
@pytest.mark.parametrize(
    "attempt",
    [
        "umount -l KEY",
        "unshare --mount umount -l KEY",
        "unshare --mount mount -o remount,bind,rw /",
        "nsenter --target 1 --mount cat KEY",
        "cat KEY | grep secret",
        "touch OUTSIDE",
        "test -e OTHER",
    ],
)
def test_no_command_takes_a_cover_away(tmp_path: Path, attempt: str) -> None:
    key, stagings, seen = tmp_path / "auditor" / "key.pem", tmp_path / "all", tmp_path / "here"
    for folder in (key.parent, stagings / "own", stagings / "other", seen):
        folder.mkdir(parents=True)
    key.write_text("secret")
    words = {"KEY": key.parent, "OUTSIDE": tmp_path / "left-behind", "OTHER": stagings / "other"}
    command = attempt
    for word, path in words.items():
        command = command.replace(word, str(path) if word != "KEY" or "cat" not in attempt else str(key))
    code = f"import subprocess, sys; open('ran', 'w'); sys.exit(subprocess.call({command!r}, shell=True) == 0)"
    variables = {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"}
    hidden = [key.parent, stagings]
    ended = run_limited(
        [sys.executable, "-c", code], stagings / "own", variables, Limits(60.0), hidden, tmp_path / "errors", seen
    )
    assert (stagings / "own" / "ran").exists(), ended.last_words
    assert ended.code == 0, attempt
    assert not (tmp_path / "left-behind").exists()
    assert list(seen.iterdir()) == []


def test_an_answer_that_the_program_carries_is_a_limit(tmp_path: Path) -> None:
    """Nothing here reviews the program: what it was committed with, it may copy. Its inputs are named instead."""
    from typer.testing import CliRunner

    from attest.cli.main import build

    run = prepare(tmp_path / "program")
    (run.folder / "stolen.json").write_text(json.dumps([9, 9, 9, 9]))
    script = run.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    text = text.replace("inputs=[data]", "inputs=[data, 'stolen.json']")
    text = text.replace(
        "        return sum(self.weights)\n",
        "        self.weights = __import__('json').load(open('stolen.json'))\n        return sum(self.weights)\n",
    )
    script.write_text(text, encoding="utf-8")
    done = run.start()
    assert done.returncode == 0, done.stderr
    replayer = Replayer(run.run_dir, run.precommit, run.events()[0]["nonce"], [run.folder], run.folder)
    assert replayer.segment(run.chain().segments[5]).outcome == "MATCH"
    shown = CliRunner().invoke(build("status"), ["status", str(run.run_dir)])
    assert "stolen.json" in shown.output
    assert "train.jsonl" not in shown.output
