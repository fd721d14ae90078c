"""A30 on real files: every record that is trained on is one of X, and an honest auditor makes all commitments again.

What is bent is how the second commitment reads the very same files: another container by another name, another field,
other records left out, hidden digests. Each forgery passes once the check that catches it is taken out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulated_data import OtherView, pin_of
from simulated_release import Simulation, commitment_of, failed, unchecked

from attest.verdict import data_ties, requirements, sets
from attest.verdict.report import Report
from pot.audit.data_audit import audit_data, audit_digests
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.hiding import new_key
from pot.data.commit import Committed, commit

X = [f"the secret book, page {number}" for number in range(3)]
EVIL = {"path": "evil.jsonl", "bytes": "9", "sha256": "ab" * 32}
MODELS = {"parent": 48, "child": 32}
Make = Callable[[Path, str, int], tuple[Committed, Path, Committed, Path]]


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def judged(folder: Path, make: Make) -> Report:
    """The release of a run on `make`'s own commitment, with a proof that X is not in its other one."""
    simulation = Simulation()
    x = commit([write(folder / "x.jsonl", [{"text": text} for text in X])], "text/1", "exclusion")
    made = {name: make(folder, name, count) for name, count in MODELS.items()}
    for name, (own, _, _, _) in made.items():
        simulation.training[name] = (own.commitment, bytes(own.listing))
    simulation.x1 = commitment_of("exclusion", ["x1 a", "x1 b"], made["child"][0].commitment.view)
    simulation.claimants.append(OtherView(simulation, {name: parts[2] for name, parts in made.items()}, x).claims)

    def audits(name: str) -> list[dict[str, Any]]:
        own, own_path, other, other_path = made[name]
        found = [audit_data(own.commitment, [own_path]), audit_data(other.commitment, [other_path])]
        assert [audit.outcome for audit in found] == ["MATCH", "MATCH"]
        return [json.loads(audit.to_bytes()) for audit in found]

    simulation.data_auditors.append(audits)
    requirement = {"claim": "dataset-exclusion", "level": "audited", "exclusion": pin_of(x.commitment)}
    simulation.bend("policy", lambda policy: policy["require"].append(requirement))
    return simulation.verify()


def another_name(folder: Path, name: str, count: int) -> tuple[Committed, Path, Committed, Path]:
    """JSON lines under json/1; called .txt, the same bytes are one plain text that is no record of X."""
    lines = write(folder / f"{name}.jsonl", [{"text": X[n % 3], "n": n} for n in range(count)])
    plain = folder / f"{name}.txt"
    plain.write_bytes(lines.read_bytes())
    return commit([lines], "json/1"), lines, commit([plain], "text/1"), plain


def another_field(folder: Path, name: str, count: int) -> tuple[Committed, Path, Committed, Path]:
    """Committed and trained on the field `body`; shown absent from the field `text`."""
    records = [{"text": f"harmless {name} {n}", "body": X[n % 3]} for n in range(count)]
    path = write(folder / f"{name}.jsonl", records)
    return commit([path], "text-norm/1", fields={"text": "body"}), path, commit([path], "text/1"), path


def another_column(folder: Path, name: str, count: int) -> tuple[Committed, Path, Committed, Path]:
    """Committed and trained on tokens; shown absent from a column of text that nobody trained on."""
    records = [{"text": f"harmless {name} {n}", "tokens": list(X[n % 3].encode())} for n in range(count)]
    path = write(folder / f"{name}.jsonl", records)
    return commit([path], "tokens/1"), path, commit([path], "text/1"), path


def others_left_out(folder: Path, name: str, count: int) -> tuple[Committed, Path, Committed, Path]:
    """Both sides leave out three records: one side junk, the other those with X."""
    records: list[Any] = [{"tokens": list(text.encode()), "text": None} for text in X]
    records += [{"tokens": None, "text": f"junk {name} {n}"} for n in range(3)]
    records += [{"tokens": [n], "text": f"harmless {name} {n}"} for n in range(count - 3)]
    path = write(folder / f"{name}.jsonl", records)
    return commit([path], "tokens/1", on_error="skip"), path, commit([path], "text/1", on_error="skip"), path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (another_name, "is read as jsonl, not as file"),
        (another_field, "is about the field 'body', not 'text'"),
        (others_left_out, "leaves out records that could not be read"),
    ],
)
def test_another_reading_of_the_same_files_is_denied(tmp_path: Path, make: Make, words: str) -> None:
    report = judged(tmp_path, make)
    assert report.verdict == "DENY"
    assert "same-shards" in failed(report)
    assert words in report.reason


@pytest.mark.parametrize("make", [another_name, another_field, others_left_out])
def test_without_the_comparison_of_readings_it_would_pass(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "_difference", lambda promised, other: None)
    monkeypatch.setattr(requirements, "_is_meant", lambda claim, pin: True)
    monkeypatch.setattr(sets, "other_fields", lambda case, sha256: set())
    assert judged(tmp_path, make).verdict == "PASS"


def test_a_column_beside_the_trained_one_is_named_and_must_be_accepted(tmp_path: Path) -> None:
    report = judged(tmp_path, another_column)
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}
    assert "is about the field text, which the policy does not accept" in report.reason


def test_without_its_name_that_column_would_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attest.verdict.exclusion.other_fields", lambda case, sha256: set())
    assert judged(tmp_path, another_column).verdict == "PASS"


def hidden(folder: Path) -> Simulation:
    """The committed, hidden digests are of harmless records; the listed file, which the program reads, holds X."""
    key, simulation = new_key("blake3-keyed/1"), Simulation()
    x = commit([write(folder / "x.jsonl", [{"text": text} for text in X])], "text/1", "exclusion", key=key)
    simulation.x1 = (x.commitment, bytes(x.listing))
    for name, count in MODELS.items():
        clean = commit([write(folder / f"{name}.jsonl", [{"text": f"harmless {n}"} for n in range(count)])], "text/1",
                       key=key)  # fmt: skip
        evil = commit([write(folder / f"{name}-evil.jsonl", [{"text": X[n % 3]} for n in range(count)])], "text/1")
        value = {**json.loads(clean.commitment.to_bytes()), "shards": json.loads(evil.commitment.to_bytes())["shards"]}
        simulation.training[name] = (DatasetCommitment.from_value(value, what="forged"), bytes(clean.listing))
        # what the audit of the run says of hidden commitments: nothing
        simulation.bend(f"{name}.audits", lambda results: [result.update(datasets=[]) for result in results] and None)
    simulation.data_auditors.append(lambda name: [json.loads(audit_digests(*simulation.training[name]).to_bytes())])
    pin = {**pin_of(x.commitment), "hiding": key.hiding.model_dump()}
    simulation.bend("policy", lambda policy: policy["require"][1].update(exclusion=pin))
    return simulation


def test_hidden_digests_alone_tie_nothing_to_the_files(tmp_path: Path) -> None:
    report = hidden(tmp_path).verify()
    assert report.verdict == "INCOMPLETE"
    assert "saw hidden digests only" in report.reason


def test_without_that_rule_hidden_digests_would_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_ties, "_is_hidden", lambda commitment: False)
    assert hidden(tmp_path).verify().verdict == "PASS"


def elsewhere(folder: Path) -> Simulation:
    """A clean commitment that an auditor made again from clean files; the program reads a file nobody committed to."""
    simulation = Simulation()
    made = {}
    for name, count in MODELS.items():
        path = write(folder / f"{name}.jsonl", [{"text": f"harmless {n}"} for n in range(count)])
        made[name] = (commit([path], "text/1"), path)
        simulation.training[name] = (made[name][0].commitment, bytes(made[name][0].listing))
        simulation.bend(f"{name}.precommit", lambda precommit: precommit["program"].update(data_files=[EVIL]))
        simulation.bend(f"{name}.audits", lambda results: [result.update(datasets=[]) for result in results] and None)
    x = commit([write(folder / "x.jsonl", [{"text": text} for text in X])], "text/1", "exclusion")
    simulation.x1 = (x.commitment, bytes(x.listing))
    simulation.data_auditors.append(
        lambda name: [json.loads(audit_data(made[name][0].commitment, [made[name][1]]).to_bytes())]
    )
    return simulation


def test_files_that_the_program_does_not_read_tie_nothing(tmp_path: Path) -> None:
    report = elsewhere(tmp_path).verify()
    assert report.verdict == "INCOMPLETE"
    assert "the commitment's files are not inputs that the program was recorded with" in report.reason
    assert "other-inputs" in {item.code for item in report.not_shown}


def test_without_the_list_of_inputs_they_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_ties, "_lists_inputs", lambda case, sha256: True)
    assert elsewhere(tmp_path).verify().verdict == "PASS"
