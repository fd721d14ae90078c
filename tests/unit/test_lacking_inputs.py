"""A run whose inputs are not its committed files is told so when it begins, and by the audit that lacks them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pot import begin
from pot.audit.replaying.produced import lost_input
from pot.data.commit import commit, commit_records, write_committed
from pot.errors import Malformed, Refused
from pot.recording.begin import prepare
from pot.recording.describe import Options
from pot.recording.precommit import Precommit, Program
from pot.recording.scripts.launched import Launched
from pot.recording.scripts.seen import Notes, Reads

SIZES: dict[str, Any] = {"batch_size": 4, "steps": 10, "checkpoint_every": 5}
LACKS = (
    "the inputs lack train.jsonl, which train commits to: no audit can recompute its roots, and a replay lacks what is"
    " not named; give the committed files by inputs="
)


@pytest.fixture(autouse=True)
def _program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a script, its data and the commitment to it; nothing else stands in the way of a replay."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "train.py"), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    monkeypatch.setattr("pot.recording.begin.replay_obstacles", list)
    lines = [b'{"id":%d,"value":%d}\n' % (n, n * n % 17) for n in range(22)]
    Path("train.jsonl").write_bytes(b"".join(lines))
    Path("other.jsonl").write_bytes(b"".join(reversed(lines)))
    write_committed(commit([Path("train.jsonl")], "json/1", "training"), Path("train.json"))


def _said(capsys: pytest.CaptureFixture[str], run: str = "run", **options: Any) -> list[str]:
    begin(run, **{"commitments": ["train.json"], **SIZES, **options}).close()
    return [line.removeprefix("pot: ") for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("inputs", [[], ["other.jsonl"]])
@pytest.mark.parametrize("stream", [False, True])
def test_inputs_without_the_committed_file_are_said_and_again_on_resuming(
    capsys: pytest.CaptureFixture[str], inputs: list[str], stream: bool
) -> None:
    assert _said(capsys, inputs=inputs, stream=stream) == [LACKS]
    assert _said(capsys, inputs=inputs, stream=stream) == [LACKS]


def test_strict_refuses_inputs_without_the_committed_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Refused) as found:
        begin("run", commitments=["train.json"], inputs=["other.jsonl"], strict=True, **SIZES)
    assert str(found.value) == f"begin(strict=True): this run would not replay: {LACKS}"
    assert not Path("run").exists()
    assert _said(capsys, inputs=["other.jsonl", "train.jsonl"], strict=True) == []


def test_a_committed_file_that_was_edited_since_is_none_of_the_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("train.jsonl").open("ab") as stream:
        stream.write(b"\n")
    assert _said(capsys, inputs=["train.jsonl"]) == [LACKS]


def test_every_committed_file_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    Path("shards").mkdir()
    for name in ("a", "b", "c"):
        Path(f"shards/{name}.jsonl").write_text(f'{{"id":"{name}"}}\n' * 8)
    write_committed(commit([Path("shards")], "json/1", "training"), Path("shards.json"))
    said = _said(capsys, commitments=["train.json", "shards.json"], inputs=["train.jsonl", "shards/b.jsonl"])
    assert [sentence.partition(":")[0] for sentence in said] == [
        "the inputs lack 2 files, first a.jsonl, of those that shards commits to"
    ]
    assert _said(capsys, "run2", commitments=["train.json", "shards.json"], inputs=["train.jsonl", "shards"]) == []


def test_records_of_a_programs_own_making_lie_in_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    made = commit_records([{"id": n} for n in range(22)], "json/1", "training")
    assert not made.commitment.shards
    assert _said(capsys, commitments=[made], strict=True) == []


@pytest.mark.parametrize("strict", [False, True])
def test_a_launched_script_hears_of_it_once_where_its_reads_were_not_seen(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, strict: bool
) -> None:
    """`pot run` names the files that Python opens; a loader's native code opens them unseen."""
    sentence = LACKS.replace("inputs=", "--input")
    for number, seen in enumerate((False, True)):
        options = Options(commitments=["train.json"], launcher="attach", strict=strict, **SIZES)
        reads = Reads(tmp_path, (), tmp_path / "run")
        launched = Launched(tmp_path / f"run{number}", options, Notes(), reads)
        launched.begun = prepare(tmp_path / f"run{number}", options)
        assert capsys.readouterr().err == ""
        if seen:
            reads.hook("open", ("train.jsonl", "r", 0))
            sentence = (
                "the script reads train.jsonl, which is not committed, so a replay lacks it: name it with --input"
                " train.jsonl"
            )
        if strict:
            with pytest.raises(Refused) as found:
                launched.check_reads()
            assert str(found.value) == f"pot run --strict: {sentence}"
        else:
            launched.check_reads()
            assert launched.notes.all() == [sentence]
            assert capsys.readouterr().err == f"pot: {sentence}\n"
        launched.close()


def test_the_audit_says_that_a_lost_file_was_never_named(capsys: pytest.CaptureFixture[str]) -> None:
    _said(capsys, inputs=["other.jsonl"])
    program: Program = Precommit.from_bytes(Path("run/precommit.json").read_bytes(), what="precommit").program
    words = "FileNotFoundError: [Errno 2] No such file or directory: '{}'"
    more = "; the run pre-committed no such input (inputs=), so it is not there in a replay"
    assert lost_input(words.format("train.jsonl"), program) == more
    assert lost_input(words.format("./train.jsonl"), program) == more
    assert lost_input(words.format("other.jsonl"), program) == ""  # pre-committed: it is lost for another reason
    assert lost_input(words.format("train.py"), program) == ""
    assert lost_input("KeyError: 'train.jsonl'", program) == ""


def test_data_in_place_of_its_commitment_is_told_apart() -> None:
    with pytest.raises(Malformed, match=r"train\.jsonl: .*; commitments= names files that 'pot data commit' wrote"):
        begin("run", commitments=["train.jsonl"], **SIZES)
