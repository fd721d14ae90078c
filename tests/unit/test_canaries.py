"""Canaries: registration, planting, the exact rank test, and the commands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer
from memorizing_run import PROGRAM, texts, train
from typer.testing import CliRunner

from attest.cli import hints as commands
from pot.audit.statistics.canaries import (
    MIN_CANDIDATES,
    Canaries,
    CanaryOpening,
    compare_canaries,
    from_template,
    new_canaries,
    open_canaries,
    planted,
)
from pot.audit.statistics.hints import Hint
from pot.canonical import canonical_bytes, sha256_hex
from pot.errors import Malformed, Refused, UsageError

SECRET = "17" * 32
MADE = from_template("The number is {}.", "text", 200, SECRET)


@pytest.fixture(scope="module")
def made() -> tuple[Canaries, CanaryOpening]:
    return new_canaries(MADE, 10, SECRET)


def test_the_registration_is_the_digest_of_the_opening(made: tuple[Canaries, CanaryOpening]) -> None:
    registration, opening = made
    assert registration.opening_sha256 == sha256_hex(opening.to_bytes())
    assert (registration.candidates, registration.planted) == ("200", "10")
    assert SECRET not in registration.to_bytes().decode()
    assert Canaries.from_bytes(registration.to_bytes(), what="r") == registration
    assert CanaryOpening.from_bytes(opening.to_bytes(), what="o") == opening
    open_canaries(registration, opening)


def test_fresh_secrets_differ() -> None:
    first, second = (new_canaries(MADE, 10)[1] for _ in range(2))
    assert first.secret != second.secret
    assert planted(first) != planted(second)


def test_what_is_planted_follows_from_the_secret(made: tuple[Canaries, CanaryOpening]) -> None:
    chosen = planted(made[1])
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 10
    assert chosen == planted(new_canaries(MADE, 10, SECRET)[1])
    assert chosen != planted(new_canaries(MADE, 10, "18" * 32)[1])


def test_another_opening_is_refused(made: tuple[Canaries, CanaryOpening]) -> None:
    registration, opening = made
    for candidates, count, secret in ((MADE[::-1], 10, SECRET), (MADE, 11, SECRET), (MADE, 10, "18" * 32)):
        with pytest.raises(Refused, match="registered"):
            open_canaries(registration, new_canaries(candidates, count, secret)[1])
    bent = registration.model_copy(update={"planted": "9"})
    with pytest.raises(Refused, match="registered"):
        open_canaries(bent, opening)


def test_the_lowest_losses_of_all_have_one_chance(made: tuple[Canaries, CanaryOpening]) -> None:
    chosen = set(planted(made[1]))
    found = compare_canaries(made[1], [float(at not in chosen) + at / 1000 for at in range(200)])
    assert found.test.p == Fraction(1, math.comb(200, 10))
    assert found.test.method == "exact"
    assert found.ranks == tuple(range(1, 11))
    worst = compare_canaries(made[1], [float(at in chosen) + at / 1000 for at in range(200)])
    assert (worst.test.p, worst.test.auc) == (1, 0)
    same = compare_canaries(made[1], [2.5] * 200)
    assert (same.test.p, set(same.ranks)) == (1, {100.5})


def test_one_canary_among_n_has_the_probability_of_its_rank() -> None:
    _, opening = new_canaries(MADE[:100], 1, SECRET)
    (place,) = planted(opening)
    for rank in (1, 7, 100):
        losses = [float(at) for at in range(1, 100)]
        losses.insert(place, rank - 0.5)
        found = compare_canaries(opening, losses)
        assert found.test.p == Fraction(rank, 100)
        assert found.ranks == (rank,)


def test_a_thousand_candidates_are_still_counted() -> None:
    _, opening = new_canaries(from_template("{}", "text", 1000, SECRET), 20, SECRET)
    chosen = set(planted(opening))
    found = compare_canaries(
        opening, [float(at * 389 % 1000) - 150 * (at in chosen) + 0.5 * (at in chosen) for at in range(1000)]
    )
    assert found.test.method == "exact"
    assert 0 < found.test.p < Fraction(1, 10)


def test_the_template(made: tuple[Canaries, CanaryOpening]) -> None:
    assert all(str(item["text"]).startswith("The number is ") and len(str(item["text"])) == 27 for item in MADE)
    assert len({str(item["text"]) for item in MADE}) == 200
    assert from_template("The number is {}.", "text", 200, "18" * 32) != MADE
    for template, count in (("no place", 200), ("{} {}", 200), ("{}", MIN_CANDIDATES - 1), ("{}", 10**6)):
        with pytest.raises(UsageError):
            from_template(template, "text", count, SECRET)


@pytest.mark.parametrize("plant", [0, 200, 201])
def test_counts_that_make_no_sense(plant: int) -> None:
    with pytest.raises(Malformed, match="planted"):
        new_canaries(MADE, plant, SECRET)


def test_candidates_that_cannot_be() -> None:
    with pytest.raises(Malformed, match="same record"):
        new_canaries([*MADE, MADE[0]], 10, SECRET)
    with pytest.raises(Malformed, match="candidates"):
        new_canaries(MADE[:99], 10, SECRET)
    with pytest.raises(Malformed):
        new_canaries(MADE, 10, "17")
    registration = {"version": "pot/canaries/v1", "opening_sha256": "0" * 64, "candidates": "99", "planted": "3"}
    with pytest.raises(Malformed, match="candidates"):
        Canaries.from_bytes(canonical_bytes(registration), what="r")


def test_one_loss_for_each_candidate(made: tuple[Canaries, CanaryOpening]) -> None:
    with pytest.raises(UsageError, match="199 losses"):
        compare_canaries(made[1], [1.0] * 199)
    with pytest.raises(UsageError, match="NaN"):
        compare_canaries(made[1], [1.0] * 199 + [float("nan")])


@pytest.fixture
def pot() -> Callable[..., Any]:
    app = typer.Typer()
    app.callback()(lambda: None)
    audit = typer.Typer()
    commands.register(audit)
    app.add_typer(audit, name="audit")
    return lambda *words: CliRunner().invoke(app, ["audit", "canaries", *map(str, words)])


def test_from_planting_to_the_hint(tmp_path: Path, pot: Callable[..., Any]) -> None:
    files = [tmp_path / name for name in ("canaries.json", "opening.json", "planted.jsonl", "hint.json")]
    own = tmp_path / "own.jsonl"
    candidates = texts(150, 41, words=1, own=16)
    own.write_bytes(b"".join(canonical_bytes({"text": text}) + b"\n" for text in candidates))
    words = ["--out", files[0], "--opening", files[1], "--plant", files[2], "--planted", 12]
    ended = pot("new", *words, "--from", own, "--json")
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout) == json.loads(files[0].read_bytes())
    assert files[1].stat().st_mode & 0o077 == 0
    lines = [json.loads(line)["text"] for line in files[2].read_text().splitlines()]
    assert len(lines) == 12
    run = train(tmp_path / "program", [*texts(300, 1), *lines], steps=57, every=19)
    test = ["test", run.run_dir, "--registration", files[0], "--opening", files[1], "--evaluate", PROGRAM]
    ended = pot(*test, "--out", files[3])
    assert ended.exit_code == 0, ended.output
    assert "12 planted among 150 candidates" in ended.stdout
    found = Hint.from_bytes(files[3].read_bytes(), what="hint")
    assert (found.kind, found.status, found.transcript_sha256) == ("canaries", "consistent", run.transcript.sha256())
    assert found.canaries is not None
    assert found.canaries.step == "57"
    assert len(found.canaries.ranks or ()) == 12


def test_new_by_template_and_what_it_refuses(tmp_path: Path, pot: Callable[..., Any]) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    ended = pot("new", "--out", one, "--opening", two, "--plant", one)
    assert isinstance(ended.exception, UsageError)
    ended = pot("new", "--out", one, "--opening", two, "--plant", tmp_path / "plant.jsonl", "--candidates", 120)
    assert ended.exit_code == 0
    assert "publish the registration" in ended.stdout
    opening = CanaryOpening.from_bytes(two.read_bytes(), what="o")
    assert len(opening.candidates) == 120
    assert str(opening.candidates[0]["text"]).startswith("The number of the safe is ")
