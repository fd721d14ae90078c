"""The memorization test: strata, statuses, drawing, reading, hints as documents, and the command."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer
from memorizing_run import NONCE, PROGRAM, hint, texts, train, write_texts
from memorizing_training import losses
from typer.testing import CliRunner

from attest.cli import hints as commands
from pot.audit.statistics.canaries import Canaries
from pot.audit.statistics.hints import MAX_HINT_BYTES, MAX_ROC, MAX_SEGMENTS, Hint, judge
from pot.audit.statistics.mann_whitney import RankTest
from pot.audit.statistics.memorization import losses_at, memorization
from pot.audit.statistics.records import draw
from pot.audit.statistics.strata import compare
from pot.canonical import canonical_bytes
from pot.errors import Malformed, PotError, Refused, UsageError

LINES = texts(1024, 1)
SUSPECTS = texts(40, 5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trained on what it claims."""
    return train(tmp_path_factory.mktemp("run") / "program", LINES)


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trained in segment 3 on SUSPECTS too."""
    folder = tmp_path_factory.mktemp("added") / "program"
    return train(folder, LINES, cheat={"also": list(range(33, 49)), "with": SUSPECTS})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("pool") / "pool.jsonl", texts(400, 7))


def pairs(seed: int, count: int, fall: float, start: float = 3.0) -> list[tuple[float, float]]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        before = rng.gauss(start, 0.5)
        made.append((before, before - rng.gauss(fall, 0.2)))
    return made


def test_records_whose_loss_fell_more_stand_out() -> None:
    found = compare(pairs(1, 100, 0.4), pairs(2, 100, 0.1))
    assert found.test.auc > Fraction(3, 4)
    assert found.test.method == "exact"
    assert found.status() == "consistent"
    assert found.strata > 5
    assert (found.steps, found.silent) == (None, None)
    same = compare(pairs(1, 100, 0.1), pairs(2, 100, 0.1))
    assert abs(same.test.auc - Fraction(1, 2)) < Fraction(1, 8)
    assert same.status() != "consistent"
    assert compare(pairs(1, 100, 0.0), pairs(2, 100, 0.4)).status() == "no-sign"


def test_a_fall_that_follows_from_the_start_is_no_difference() -> None:
    """Losses fall by half of what they were, trained on or not: the claimed ones were higher at the start."""
    rng = random.Random(3)
    claimed = [(before, before / 2 + rng.gauss(0, 0.05)) for before in (rng.uniform(2, 4) for _ in range(64))]
    control = [(before, before / 2 + rng.gauss(0, 0.05)) for before in (rng.uniform(1, 3) for _ in range(64))]
    found = compare(claimed, control)
    assert found.raw_auc > Fraction(3, 4)
    assert found.status() != "consistent"
    assert compare(claimed, control, stratum=0).status() == "consistent"  # what the strata are for


def test_groups_that_never_meet_in_a_stratum_cannot_be_compared() -> None:
    found = compare([(1.0, 0.1)] * 30, [(3.0, 2.9)] * 30)
    assert (found.test.first, found.test.p, found.test.auc) == (0, 1, Fraction(1, 2))
    assert found.status() == "undecided"
    assert found.scores == ([], [])


def test_silent_steps_keep_a_segment_from_being_consistent() -> None:
    claimed = [*pairs(1, 64, 0.8), *pairs(2, 64, -0.3)]
    control = pairs(3, 128, 0.1)
    steps = [1 + at // 16 for at in range(128)]
    found = compare(claimed, control, steps)
    assert (found.steps, found.silent) == (8, 4)
    assert compare(claimed, control, [0] * 128).steps is None
    assert found.status() == "no-sign"
    seen = replace(found, test=replace(found.test, p=Fraction(1, 1000)))
    assert judge(seen.test) == "consistent"
    assert seen.status() == "undecided"
    assert replace(seen, silent=1).status() == "consistent"


def test_no_record_is_no_comparison() -> None:
    with pytest.raises(UsageError, match="no record"):
        compare([], [(1.0, 1.0)])
    with pytest.raises(UsageError, match="no record"):
        compare([(1.0, 1.0)], [])


@pytest.mark.parametrize(
    ("p", "sizes", "tries", "status"),
    [
        ("0.01", (30, 30), 1, "consistent"), ("0.01", (30, 30), 2, "undecided"), ("0.0101", (30, 30), 1, "undecided"),
        ("0.1", (30, 30), 1, "undecided"), ("0.101", (30, 30), 1, "no-sign"), ("0.101", (19, 30), 1, "undecided"),
        ("0.02", (30, 30), 6, "no-sign"), ("1", (0, 0), 1, "undecided"),
    ],
)  # fmt: skip
def test_statuses(p: str, sizes: tuple[int, int], tries: int, status: str) -> None:
    assert judge(RankTest(Fraction(1, 2), Fraction(p), "exact", *sizes), tries) == status


@pytest.mark.parametrize(("count", "open_"), [(150, True), (300, False)])
def test_few_suspected_records_that_leave_no_sign_leave_it_open(
    run: Any, tmp_path: Path, count: int, open_: bool
) -> None:
    """Over eight draws; each is without a sign by two chances in three, where it may be at all."""
    pool = write_texts(tmp_path / "pool.jsonl", texts(600, 7))
    suspects = write_texts(tmp_path / "x.jsonl", texts(count, 6))
    drawn = [hint(run, pool, suspected=[suspects], records=count, nonce=f"{at:064x}") for at in range(8)]
    statuses = [found.status for found in drawn]
    assert ("no-sign" in statuses) is not open_, statuses
    assert statuses.count("consistent") <= 2, statuses
    for found in drawn:
        assert found.memorization is not None
        listed = found.memorization.segments
        assert all(min(int(item.claimed), int(item.control)) >= 20 for item in listed)  # enough for a claim


def test_what_is_drawn_depends_on_transcript_and_nonce() -> None:
    drawn = draw("00" * 32, "11" * 32, "steps", 1000, 50)
    assert len(set(drawn)) == 50
    assert max(drawn) < 1000
    assert drawn == draw("00" * 32, "11" * 32, "steps", 1000, 50)
    others = [("01" * 32, "11" * 32, "steps"), ("00" * 32, "12" * 32, "steps"), ("00" * 32, "11" * 32, "batch")]
    for other in others:
        assert draw(*other, 1000, 50) != drawn
    assert sorted(draw("00" * 32, "11" * 32, "x", 5, 50)) == [0, 1, 2, 3, 4]
    assert draw("00" * 32, "11" * 32, "x", 0, 5) == []


def test_the_hint_of_an_honest_run(run: Any, pool: Path) -> None:
    found = hint(run, pool)
    assert (found.kind, found.status) == ("memorization", "consistent")
    assert (found.transcript_sha256, found.precommit_sha256) == (run.transcript.sha256(), run.precommit.sha256())
    data = found.to_bytes()
    assert Hint.from_bytes(data, what="hint") == found
    assert len(data) < MAX_HINT_BYTES
    told = found.memorization
    assert told is not None
    assert [item.segment for item in told.segments] == ["2", "3", "4"]  # not the one that starts from W_0
    assert (told.question, told.control, told.nonce, told.view, told.overlap) == (
        "claimed", "held-out", NONCE, "json/1", "0",
    )  # fmt: skip
    assert 0.6 < float(told.mean_auc) < 1
    assert len(told.roc) <= MAX_ROC
    assert [(point.false, point.true) for point in (told.roc[0], told.roc[-1])] == [("0", "0"), ("1", "1")]
    assert hint(run, pool) == found  # nothing in it is left to chance
    assert hint(run, pool, nonce="00" * 32).memorization != told


def test_without_a_pool_records_not_yet_taken_are_compared(run: Any) -> None:
    found = hint(run)
    assert found.status == "consistent"
    assert found.memorization is not None
    assert found.memorization.control == "unseen"
    assert found.memorization.pool_root_blake3 is None
    with pytest.raises(UsageError, match="every record was taken"):
        hint(run, segments=[4])


def test_suspected_records_are_found_where_they_were_trained_on(added: Any, pool: Path, tmp_path: Path) -> None:
    found = hint(added, pool, suspected=[write_texts(tmp_path / "x.jsonl", SUSPECTS)])
    told = found.memorization
    assert told is not None
    assert (found.status, told.question, told.tested) == ("consistent", "suspected", "4")
    assert (told.segments[0].segment, told.segments[0].status) == ("3", "consistent")
    assert told.segments[0].steps is None
    never = hint(added, pool, suspected=[write_texts(tmp_path / "y.jsonl", texts(40, 6))])
    assert never.memorization is not None
    assert min(Fraction(item.p) for item in never.memorization.segments) > Fraction(1, 10_000)
    with pytest.raises(UsageError, match="held-out pool"):
        hint(added, suspected=[tmp_path / "x.jsonl"])


def test_states_are_checked_before_they_are_evaluated(run: Any, tmp_path: Path) -> None:
    event = run.chain().segments[0].start_state
    assert len(losses_at(run.run_dir, event, [{"text": LINES[0]}], losses)) == 1
    with pytest.raises(Refused, match="missing"):
        losses_at(tmp_path, event, [{"text": LINES[0]}], losses)


@pytest.mark.parametrize("given", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")], ["a", 1.0], None, [None, 1.0]])
def test_a_loss_function_must_give_numbers(run: Any, given: Any) -> None:
    with pytest.raises(UsageError, match="losses"):
        losses_at(run.run_dir, run.chain().segments[0].start_state, [1, 2], lambda checkpoint, records: given)


def test_what_cannot_be_asked(run: Any, pool: Path, tmp_path: Path) -> None:
    data = [run.folder / "train.jsonl"]
    wrong: list[tuple[type[PotError], str, dict[str, Any]]] = [
        (Malformed, "64 lowercase", {"nonce": "AB" * 32}), (Malformed, "64 lowercase", {"nonce": "ab"}),
        (UsageError, "segments 1 to 4", {"segments": [5]}), (UsageError, "segments 1 to 4", {"segments": [0]}),
        (UsageError, "1 to 16", {"sample": 17}), (UsageError, "1 to 16", {"segments": [1] * 17}),
        (UsageError, "2 to 4096", {"records": 1}), (UsageError, "2 to 4096", {"records": 5000}),
    ]  # fmt: skip
    for error, sentence, options in wrong:
        with pytest.raises(error, match=sentence):
            memorization(run.run_dir, losses, data, held_out=[pool], **options)
    with pytest.raises(UsageError, match=r"no file with SHA-256 .* was given"):
        memorization(run.run_dir, losses, [pool])
    with pytest.raises(UsageError, match="no such file or folder"):
        memorization(run.run_dir, losses, [tmp_path / "absent"])
    folder = memorization(run.run_dir, losses, [run.folder], held_out=[pool], nonce=NONCE, records=128)
    assert folder == hint(run, pool)  # files are found by their content


def bent(found: Hint, edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(found.to_bytes())
    edit(value)
    return value


def test_a_hint_must_agree_with_itself(run: Any, pool: Path) -> None:
    found = hint(run, pool)
    edits: list[Callable[[dict[str, Any]], object]] = [
        lambda value: value.update(kind="canaries"),
        lambda value: value.pop("memorization"),
        lambda value: value.update(status="proven"),
        lambda value: value.update(status="undecided"),  # the findings say "consistent"
        lambda value: value["memorization"]["segments"][0].update(status="no-sign"),
        lambda value: value["memorization"].update(control="unseen"),
        lambda value: value["memorization"].update(question="suspected"),
        lambda value: value["memorization"].update(tested="1"),
        lambda value: value["memorization"].update(segments=[]),
        lambda value: value["memorization"].update(segments=value["memorization"]["segments"][:1] * (MAX_SEGMENTS + 1)),
        lambda value: value["memorization"].update(roc=value["memorization"]["roc"][:1] * (MAX_ROC + 1)),
        lambda value: value["memorization"]["segments"][0].update(p="0.02"),  # and yet "consistent"
        lambda value: value["memorization"]["segments"][0].pop("steps"),
        lambda value: value["memorization"]["segments"][0].update(silent="999"),
        lambda value: value["memorization"]["segments"][0].update(first="99"),
        lambda value: value["memorization"].update(view="v" * 65),
        lambda value: value.update(note=""),
    ]
    for edit in edits:
        with pytest.raises(Malformed):
            Hint.from_bytes(canonical_bytes(bent(found, edit)), what="hint")


def test_a_full_hint_still_fits(run: Any, pool: Path) -> None:
    value = json.loads(hint(run, pool).to_bytes())
    told = value["memorization"]
    longest = {**told["segments"][0], "p": "1.23457e-300", "auc": "0.123457", "raw_auc": "0.123457"}
    longest |= dict.fromkeys(("segment", "first", "last"), "4096000")
    told["tested"], told["segments"] = "9999", [longest] * MAX_SEGMENTS
    told["roc"] = [{"false": "0.123457", "true": "0.123457"}] * MAX_ROC
    told["evaluate_sha256"] = "ab" * 32
    Hint.from_bytes(canonical_bytes(value), what="hint")
    widest = {name: "1" * 19 for name in longest if longest[name].isdigit()}
    widest |= dict.fromkeys(("auc", "raw_auc"), "0." + "1" * 20) | {"silent": "1" * 19, "steps": "1" * 19}
    told["segments"] = [{**longest, **widest}] * MAX_SEGMENTS
    told["roc"] = [{"false": "0." + "1" * 20, "true": "0." + "1" * 20}] * MAX_ROC
    with pytest.raises(Malformed, match="over the limit"):
        Hint.from_bytes(canonical_bytes(value), what="hint")
    for share in ("1.5", "-0.1", "0." + "1" * 21, "1e9", "2e-1000", "01", "nan"):
        told["segments"] = [{**longest, "auc": share}]
        with pytest.raises(Malformed, match="auc"):
            Hint.from_bytes(canonical_bytes(value), what="hint")


@pytest.fixture
def pot() -> Callable[..., Any]:
    app = typer.Typer()
    app.callback()(lambda: None)
    audit = typer.Typer()
    commands.register(audit)
    app.add_typer(audit, name="audit")
    return lambda *words: CliRunner().invoke(app, ["audit", *map(str, words)])


def test_the_command(run: Any, pool: Path, tmp_path: Path, pot: Callable[..., Any]) -> None:
    out = tmp_path / "hint.json"
    words = ["memorization", run.run_dir, "--evaluate", PROGRAM, "--data", run.folder / "train.jsonl",
             "--held-out", pool, "--nonce", NONCE, "--records", 128, "--out", out]  # fmt: skip
    ended = pot(*words, "--json")
    assert ended.exit_code == 0, ended.output
    found = Hint.from_bytes(out.read_bytes(), what="hint")
    assert json.loads(ended.stdout) == json.loads(out.read_bytes())
    assert found.memorization is not None
    assert found.memorization.evaluate_sha256 is not None
    ended = pot(*words)
    assert ended.stdout.startswith("consistent with having been trained on")
    assert "never proof" in ended.stdout
    suspects = write_texts(tmp_path / "x.jsonl", texts(4, 6))
    ended = pot(*words, "--suspected", suspects)
    assert ended.exit_code == 0  # a hint was written
    assert ended.stdout.startswith("cannot be told from this")  # four records: nothing could have been seen


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("losses = 3", "no function"), ("import no_such_module_anywhere", "cannot be imported"),
        ("def losses(checkpoint, records):\n    return 1 / 0", "ZeroDivisionError"), ("(", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import sys\ndef losses(checkpoint, records):\n    sys.exit('no model')", "SystemExit: no model"),
    ],
)  # fmt: skip
def test_a_program_that_cannot_be_used(
    run: Any, pool: Path, tmp_path: Path, pot: Callable[..., Any], program: str, sentence: str
) -> None:
    (tmp_path / "eval.py").write_text(program)
    ended = pot("memorization", run.run_dir, "--evaluate", tmp_path / "eval.py", "--data", run.folder / "train.jsonl",
                "--held-out", pool, "--out", tmp_path / "hint.json")  # fmt: skip
    assert isinstance(ended.exception, UsageError)
    assert sentence in str(ended.exception)
    assert not (tmp_path / "hint.json").exists()


def test_the_examples_of_the_specification_are_read() -> None:
    text = (Path(__file__).parents[2] / "specs" / "hints.md").read_text("utf-8")
    hints, registrations = re.findall(r"```json\n(\{.*?\})\n```", text)
    assert Hint.from_bytes(hints.encode(), what="example").status == "consistent"
    assert Canaries.from_bytes(registrations.encode(), what="example").planted == "16"


def test_probabilities_of_honest_comparisons_are_uniform() -> None:
    low = sum(compare(pairs(n, 24, 0.1), pairs(n + 10_000, 24, 0.1)).test.p <= Fraction(1, 10) for n in range(400))
    assert low <= 40 + 3 * math.sqrt(400 * 0.1 * 0.9)
    assert low >= 40 - 4 * math.sqrt(400 * 0.1 * 0.9)
