"""A25: the text is committed, and another tokenizer than the committed one turns it into what is trained on.

The text's roots do not change with the tokenizer. What gives it away: the tokenizer is an input of the program, whose
digest is in the pre-commitment, so a replay uses the committed one; and token ids are a view with roots of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun, prepare

from pot.audit.replaying.replay import Replay, Replayer
from pot.canonical import canonical_bytes
from pot.data.commit import commit

NAME = 'TOKENIZER = os.environ.pop("POT_TEST_TOKENIZER", "tokenizer.json")'
SCRIPT = (
    ("import random\n", f"import json, os, random\n{NAME}\n"),
    ("inputs=[data],", 'inputs=[data, "tokenizer.json"],'),
    ("    source = Sums(", "    tokens = json.loads(Path(TOKENIZER).read_text())\n    source = Sums("),
    ("source.update(items)", "source.update([dict(item, value=tokens[item['value']]) for item in items])"),
)
COMMITTED = list(range(100, 117))
OTHER = [*COMMITTED[:8], *reversed(COMMITTED[8:])]  # the same ids, some of them for other texts


@pytest.fixture
def run(tmp_path: Path) -> RecordedRun:
    """Trained with another tokenizer than the file that the pre-commitment names has."""
    found = prepare(tmp_path / "program", steps=10)
    script = found.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    for old, new in SCRIPT:
        assert old in text
        text = text.replace(old, new)
    script.write_text(text, encoding="utf-8")
    (found.folder / "tokenizer.json").write_bytes(canonical_bytes(COMMITTED))
    (tmp_path / "other.json").write_bytes(canonical_bytes(OTHER))
    done = found.start(POT_TEST_TOKENIZER=str(tmp_path / "other.json"))  # stands for a file exchanged after it was read
    assert done.returncode == 0, done.stderr
    return found


def replays(run: RecordedRun, tokenizer: Path) -> list[Replay]:
    data = [run.folder / "train.jsonl", tokenizer]
    replayer = Replayer(run.run_dir, run.precommit, run.events()[0]["nonce"], data, run.folder)
    return [replayer.segment(segment) for segment in run.chain().segments]


def test_the_committed_tokenizer_gives_other_states(run: RecordedRun) -> None:
    assert run.codes() == []  # the chain alone cannot see it
    assert {replay.outcome for replay in replays(run, run.folder / "tokenizer.json")} == {"MISMATCH"}


def test_the_exchanged_one_is_refused(run: RecordedRun, tmp_path: Path) -> None:
    found = replays(run, tmp_path / "other.json")
    assert {replay.outcome for replay in found} == {"REFUSED"}
    assert "the program reads it as tokenizer.json" in found[0].detail


def test_without_its_digest_it_would_pass(run: RecordedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_name(program: Any, *_: Any) -> tuple[dict[str, Path], None]:
        files = [*program.files, *program.data_files]
        return {file.path: run.folder / file.path for file in files} | {"tokenizer.json": tmp_path / "other.json"}, None

    monkeypatch.setattr("pot.audit.replaying.replay.program_inputs", by_name)
    assert {replay.outcome for replay in replays(run, tmp_path / "other.json")} == {"MATCH"}


def test_a_tokenizer_that_is_no_input_is_not_there_in_a_replay(
    run: RecordedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_it(program: Any, *_: Any) -> tuple[dict[str, Path], None]:
        return {name: run.folder / name for name in ("toy_training.py", "train.jsonl")}, None

    monkeypatch.setattr("pot.audit.replaying.replay.program_inputs", without_it)
    found = replays(run, run.folder / "tokenizer.json")
    assert {replay.outcome for replay in found} == {"REFUSED"}
    assert "tokenizer.json" in found[0].detail


def test_tokens_have_roots_of_their_own(tmp_path: Path) -> None:
    texts = ["a text", "another text", "a third"]
    found = []
    for name, ids in (("committed", COMMITTED), ("other", OTHER)):
        path = tmp_path / f"{name}.jsonl"
        tokens = [[ids[-len(word) - at] for at, word in enumerate(text.split())] for text in texts]
        lines = [json.dumps({"text": text, "tokens": own}) for text, own in zip(texts, tokens, strict=True)]
        path.write_text("".join(line + "\n" for line in lines))
        found.append([commit([path], view, "training").commitment for view in ("text/1", "tokens/1")])
    (text, tokens), (other_text, other_tokens) = found
    assert text.records.root_blake3 == other_text.records.root_blake3  # the text alone cannot see it
    assert tokens.records.root_blake3 != other_tokens.records.root_blake3
    assert tokens.set.root_blake3 != other_tokens.set.root_blake3
