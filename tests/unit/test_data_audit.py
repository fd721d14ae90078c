"""Data audits: a commitment made again from its digests or its files, and `pot audit data`, which signs the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attest.bundle import SigstoreBundle
from attest.cli.main import main
from attest.predicate import DATA_AUDIT
from attest.statement import Statement
from attest.trust.keys import generate
from pot.audit.data_audit import DataAudit, audit_data, audit_digests
from pot.commitments.hiding import new_key
from pot.data.commit import Committed, commit, commit_records, load_committed, write_committed
from pot.data.compose import compose_paths
from pot.errors import Malformed, UsageError

TEXTS = [f"record number {number} tells of {'lions and ' * 12}{number}" for number in range(24)]


def write(path: Path, texts: list[str] = TEXTS, name: str = "text") -> Path:
    rows = [{name: text, "licence": ("MIT", "CC0-1.0")[at % 2], "tokens": at} for at, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "train.jsonl")


@pytest.mark.parametrize("view", ["text/1", "winnow50/1"])
def test_the_digests_alone_give_both_roots(data: Path, view: str) -> None:
    made = commit([data], view)
    result = audit_digests(made.commitment, made.listing)
    assert (result.outcome, result.source, result.records, result.agrees) == ("MATCH", "digests", "24", True)
    assert DataAudit.from_bytes(result.to_bytes(), what="data audit") == result


@pytest.mark.parametrize("bend", ["changed", "short", "long", "empty"])
@pytest.mark.parametrize("view", ["text/1", "winnow50/1"])
def test_other_digests_do_not(data: Path, view: str, bend: str) -> None:
    made = commit([data], view)
    listing = bytearray(bytes(made.listing))
    listing[-1] ^= 1
    other = {"changed": listing, "short": listing[:-8], "long": listing + bytes(32), "empty": b""}[bend]
    result = audit_digests(made.commitment, bytes(other))
    assert result.outcome == "MISMATCH"
    assert result.detail is not None
    assert "digest list" in result.detail
    assert not result.agrees


def test_a_set_tree_without_a_record_is_met_from_the_digests(data: Path) -> None:
    """A31: what the digest audit is for."""
    honest, without = commit([data], "text/1"), commit([write(data.with_name("w.jsonl"), TEXTS[1:])], "text/1")
    forged = honest.commitment.model_copy(update={"set": without.commitment.set})
    result = audit_digests(forged, honest.listing)
    assert result.outcome == "MISMATCH"
    assert result.detail is not None
    assert "set of 24" in result.detail


@pytest.mark.parametrize("view", ["text/1", "json/1", "winnow50/1"])
def test_the_files_give_everything_again(data: Path, view: str, tmp_path: Path) -> None:
    made = commit([data], view).commitment
    assert audit_data(made, [data]).outcome == "MATCH"
    renamed = tmp_path / "another-name.jsonl"
    renamed.write_bytes(data.read_bytes())
    assert audit_data(made, [renamed]).outcome == "MATCH"


def test_another_record_is_a_mismatch(data: Path) -> None:
    made = commit([data], "text/1").commitment
    write(data, [*TEXTS[:-1], "another"])
    result = audit_data(made, [data])
    assert (result.outcome, result.records) == ("MISMATCH", "24")
    assert result.detail is not None
    assert result.detail.startswith("ordered root: ")


def test_the_same_records_in_another_file_are_a_mismatch(data: Path) -> None:
    """Bytes that no view sees: the roots are the same, the file is not."""
    made = commit([data], "text/1").commitment
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text("".join(json.dumps({**row, "unseen": 1}) + "\n" for row in rows))
    result = audit_data(made, [data])
    assert result.outcome == "MISMATCH"
    assert result.detail is not None
    assert "of file 1" in result.detail


def test_files_in_another_order_and_files_left_out_are_mismatches(data: Path) -> None:
    second = write(data.with_name("second.jsonl"), ["one more record"])
    made = commit([data, second], "text/1").commitment
    assert audit_data(made, [data, second]).outcome == "MATCH"
    assert audit_data(made, [second, data]).outcome == "MISMATCH"
    assert audit_data(made, [data]).outcome == "MISMATCH"


def test_fields_are_read_as_the_commitment_says(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", name="content")
    made = commit([path], "text/1", fields={"text": "content"}).commitment
    assert audit_data(made, [path]).outcome == "MATCH"


def test_what_was_skipped_is_skipped_again(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl")
    with path.open("a") as file:
        file.write("not json\n")
    made = commit([path], "text/1", on_error="skip").commitment
    assert made.reading is not None
    assert made.reading.skipped == "1"
    assert audit_data(made, [path]).outcome == "MATCH"
    strict = commit([write(tmp_path / "u.jsonl")], "text/1").commitment
    with pytest.raises(Malformed):
        audit_data(strict, [path])


def test_hidden_commitments_need_their_key(data: Path) -> None:
    key, other = new_key("blake3-keyed/1"), new_key("blake3-keyed/1")
    made = commit([data], "text/1", key=key).commitment
    assert audit_data(made, [data], key).outcome == "MATCH"
    for wrong in (None, other):
        with pytest.raises(UsageError, match="--key-file"):
            audit_data(made, [data], wrong)
    with pytest.raises(UsageError, match="leave --key-file out"):
        audit_data(commit([data], "text/1").commitment, [data], key)


def test_compositions_are_summed_up_again(data: Path) -> None:
    made = commit([data], "text/1").commitment
    honest = compose_paths(made, [data], ["licence"], "tokens")
    sold = data.with_name("sold.jsonl")
    sold.write_text(data.read_text().replace("CC0-1.0", "MIT"))
    relabelled = compose_paths(made, [sold], ["licence"], "tokens")  # the view sees no labels
    result = audit_data(made, [data], None, [honest, relabelled])
    assert (result.outcome, result.agrees) == ("MATCH", False)
    assert (result.compositions, result.compositions_differ) == ((honest.sha256(),), (relabelled.sha256(),))
    assert audit_data(made, [data], None, [honest]).agrees
    other = honest.model_copy(update={"commitment_sha256": "ab" * 32})
    with pytest.raises(UsageError, match="of another commitment"):
        audit_data(made, [data], None, [other])


def test_a_programs_own_data_set_has_no_files() -> None:
    made = commit_records([{"text": "a"}, {"text": "b"}], "text/1")
    assert audit_digests(made.commitment, made.listing).outcome == "MATCH"
    with pytest.raises(UsageError, match="--digests"):
        audit_data(made.commitment, [Path("anything")])


GOOD: dict[str, Any] = {
    "version": "pot/data-audit/v1",
    "commitment_sha256": "ab" * 32,
    "source": "data",
    "records": "3",
    "outcome": "MATCH",
    "compositions": ["cd" * 32],
}


@pytest.mark.parametrize(
    "change",
    [
        {"source": "digests"},
        {"outcome": "MISMATCH", "detail": "x"},
        {"outcome": "MISMATCH", "compositions": None},
        {"compositions": []},
        {"compositions": ["cd" * 32, "cd" * 32]},
        {"compositions_differ": ["cd" * 32]},
        {"detail": ""},
        {"detail": "x" * 301},
        {"level": "proved"},
        {"outcome": "match"},
    ],
)
def test_a_data_audit_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    DataAudit.from_value(GOOD, what="data audit")
    value = {name: item for name, item in {**GOOD, **change}.items() if item is not None}
    with pytest.raises(Malformed):
        DataAudit.from_value(value, what="data audit")


@pytest.fixture
def made(data: Path, tmp_path: Path) -> Committed:
    write_committed(commit([data], "text/1"), tmp_path / "c.json")
    generate("ecdsa-p256").save(tmp_path / "auditor.pem")
    return load_committed(tmp_path / "c.json")


def pot(folder: Path, words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(folder)
    return main(words.split())


def test_the_command_signs_what_it_found(
    made: Committed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in ("--digests c.digests", "--data train.jsonl"):
        words = f"audit data c.json {source} --key auditor.pem --out a.jsonl --json"
        assert pot(tmp_path, words, monkeypatch) == 0
        printed = json.loads(capsys.readouterr().out)
        line = (tmp_path / "a.jsonl").read_bytes().strip()
        payload = SigstoreBundle.from_line(line, what="line").dsse_envelope.payload_bytes()
        statement = Statement.from_payload(payload, what="payload")
        assert statement.predicate_type == DATA_AUDIT
        assert statement.subject_sha256 == made.commitment.sha256()
        assert (
            DataAudit.from_value(statement.predicate, what="audit").model_dump(mode="json", exclude_none=True)
            == printed
        )


def test_the_command_says_a_mismatch_by_its_exit_code(
    made: Committed, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(data, [*TEXTS[:-1], "another"])
    assert pot(tmp_path, "audit data c.json --data train.jsonl --key auditor.pem --out a.jsonl", monkeypatch) == 1
    assert capsys.readouterr().out.startswith("MISMATCH  c.json")
    assert (tmp_path / "a.jsonl").is_file()


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--digests c.digests --data train.jsonl",
        "--digests c.digests --composition c.json",
        "--digests c.digests --key-file auditor.pem",
        "--digests absent.digests",
        "--data absent.jsonl",
        "--digests .",
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    made: Committed, tmp_path: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pot(tmp_path, f"audit data c.json {words} --key auditor.pem --out a.jsonl", monkeypatch) == 2
    assert not (tmp_path / "a.jsonl").exists()


def test_the_command_does_not_write_over_what_it_reads(
    made: Committed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in ("c.json", "c.digests", "auditor.pem"):
        before = (tmp_path / target).read_bytes()
        words = f"audit data c.json --digests c.digests --key auditor.pem --out {target}"
        assert pot(tmp_path, words, monkeypatch) == 2
        assert (tmp_path / target).read_bytes() == before


def test_a_run_directory_is_still_the_first_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pot(tmp_path, "audit --help", monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "--challenge" in shown
    assert "pot audit data" in shown
    for run in ("run", "./data"):
        words = f"audit {run} --challenge c --data d --key k --out o"
        assert pot(tmp_path, words, monkeypatch) == 2
        assert "is no run folder" in capsys.readouterr().err
    assert pot(tmp_path, "audit data c.json --challenge c", monkeypatch) == 2
    assert "pot audit data" in capsys.readouterr().err
