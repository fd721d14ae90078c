"""pot challenge: the price, a beacon's rounds, what a prover must still have, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from private_beacon import PrivateBeacon

from attest.cli.challenge import _duration
from attest.cli.main import main
from pot.audit.challenges.challenge import Challenge
from pot.audit.challenges.price import challenged_segments, needed_files, price, seconds_per_step
from pot.canonical import canonical_bytes
from pot.recording.begin import read_nonce

DRAND = Path(__file__).parents[1] / "vectors" / "drand"
SIZES = ["--forged", "0.2", "--detect", "0.5"]


def new(run: Any, *more: str) -> int:
    return main(["challenge", "new", str(run.run_dir), *SIZES, *more])


def beacon_files(folder: Path, number: int = 7, signed: int | None = None) -> list[str]:
    """Options for a round of a private chain."""
    beacon = PrivateBeacon()
    drawn, info = beacon.sign(number, signed).model_dump(mode="json"), beacon.info.model_dump(mode="json")
    (folder / "round.json").write_bytes(canonical_bytes({"version": "pot/beacon-round/v1", **drawn}))
    (folder / "chain.json").write_bytes(canonical_bytes({"version": "pot/beacon-chain/v1", **info}))
    return ["--beacon", str(folder / "round.json"), "--beacon-chain", str(folder / "chain.json")]


def test_the_price_comes_first_and_nothing_is_written(
    finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(finished_run, "--dry-run", "--seconds-per-step", "6") == 0
    out = capsys.readouterr().out
    # W_0 is made again by itself, unless the draw holds the first segment: in one of three draws
    assert re.match(
        r"price: 2 segments, 10 steps to repeat, plus the start of [23] processes; about 1 minute at 6 s a step,"
        " as you say; about 1[05] seconds for the starts at 5 s each, a guess\n",
        out,
    )
    assert "2 of 6 segments are to be replayed" in out
    assert new(finished_run, "--dry-run", "--seconds-per-step", "6", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["steps"], value["minutes"], value["estimated"]) == ("10", "1.0", False)
    assert value["starts"] in ("2", "3")
    assert (value["start_minutes"], value["start_estimated"]) == (repr(5.0 * int(value["starts"]) / 60), True)
    assert new(finished_run, "--dry-run", "--seconds-per-start", "30") == 0
    assert re.search("; about (1|1.5) minutes? for the starts at 30 s each, as you say\n", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    assert new(finished_run, "--out", str(tmp_path / "c.json"), "--seconds-per-step", "6") == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("price: 2 segments")
    assert captured.out.startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (1.0, "1 minute"),
        (1.5, "1.5 minutes"),
        (180.4, "180 minutes"),
        (0.1, "6 seconds"),
        (1 / 60, "1 second"),
        (0.004, "0.24 seconds"),
    ],
)
def test_a_duration_in_words(minutes: float, words: str) -> None:
    assert _duration(minutes) == words


def test_the_first_segment_is_replayed_with_the_initial_state(finished_run: Any) -> None:
    segments = finished_run.chain().segments
    assert price(segments[:2], None, estimated=True).starts == 2
    assert price(segments[1:3], None, estimated=True).starts == 3
    assert price(segments[1:3], None, estimated=True, processes=4).starts == 12


def test_without_a_measured_duration_it_is_estimated_from_the_files(
    recorded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = recorded.chain()
    for at, event in enumerate([chain.segments[0].start_state, *(s.end_state for s in chain.segments)]):
        for file in event.files:
            os.utime(recorded.run_dir / file.path, (1_700_000_000 + 15 * at,) * 2)
    assert seconds_per_step(recorded.run_dir, chain) == 3.0
    assert new(recorded, "--dry-run") == 0
    assert "at 3 s a step, estimated from the times of the checkpoint files" in capsys.readouterr().out
    shutil.rmtree(recorded.run_dir / "checkpoints")
    assert seconds_per_step(recorded.run_dir, chain) is None
    assert new(recorded, "--dry-run") == 0
    assert "give --seconds-per-step" in capsys.readouterr().out


def test_a_draw_of_the_provers_own_says_what_trying_again_is_worth(
    finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(finished_run, "--prover-derived", "--out", str(tmp_path / "c.json")) == 0
    assert "a prover that can try 2^20 times escapes with probability 1.000000" in capsys.readouterr().err


def test_a_round_of_quicknet_draws(finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c.json"
    assert new(finished_run, "--beacon", str(DRAND / "round-1000.json"), "--out", str(out)) == 0
    error = capsys.readouterr().err
    assert "round 1000 of chain quicknet (52db9ba70e0cc0f6) holds; it was due at 2023-08-23 15:59:24 UTC" in error
    assert "policy names this chain" in error
    challenge = Challenge.from_bytes(out.read_bytes(), what="challenge")
    assert challenge.nonce == json.loads((DRAND / "round-1000.json").read_bytes())["randomness"]
    assert main(["challenge", "answer", str(finished_run.run_dir), "--challenge", str(out)]) == 0


def test_a_round_of_another_chain_needs_its_description(
    finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, out = beacon_files(tmp_path), tmp_path / "c.json"
    assert new(finished_run, *options, "--out", str(out)) == 0
    assert new(finished_run, *options[:2], "--dry-run") == 1
    assert "belongs to the chain" in capsys.readouterr().err
    answer = ["challenge", "answer", str(finished_run.run_dir), "--challenge", str(out)]
    assert main(answer) == 1
    assert main([*answer, *options[2:]]) == 0


def test_a_round_that_does_not_hold_draws_nothing(
    finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(finished_run, *beacon_files(tmp_path, 7, signed=8), "--out", str(tmp_path / "c.json")) == 1
    assert "not that of the chain" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--out", "c.json", "--dry-run"],
        ["--dry-run", "--beacon-chain", "chain.json"],
        ["--dry-run", "--prover-derived", "--nonce", "00" * 32],
        ["--dry-run", "--seconds-per-step", "nan"],
        ["--dry-run", "--seconds-per-step", "-1"],
        ["--dry-run", "--seconds-per-start", "inf"],
        ["--dry-run", "--beacon", "absent.json"],
    ],
)
def test_options_that_contradict_each_other(finished_run: Any, more: list[str]) -> None:
    assert new(finished_run, *more) == 2


def test_a_challenge_is_not_written_over_the_round(finished_run: Any, tmp_path: Path) -> None:
    options = beacon_files(tmp_path)
    before = (tmp_path / "round.json").read_bytes()
    assert new(finished_run, *options, "--out", options[1]) == 2
    assert (tmp_path / "round.json").read_bytes() == before


# what a prover must still have ---------------------------------------------------------------------------------------


def drawn(run: Any, tmp_path: Path, *more: str) -> tuple[list[str], Challenge]:
    out = tmp_path / "c.json"
    assert new(run, "--out", str(out), "--nonce", "0a" * 32, *more) == 0
    command = ["challenge", "answer", str(run.run_dir), "--challenge", str(out)]
    return command, Challenge.from_bytes(out.read_bytes(), what="challenge")


@pytest.mark.parametrize("unit", ["segment", "step"])
def test_the_answer_lists_what_an_auditor_needs(
    recorded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], unit: str
) -> None:
    command, challenge = drawn(recorded, tmp_path, "--unit", unit)
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    segments = challenged_segments(challenge, recorded.chain())
    assert value["segments"] == [str(segment.index) for segment in segments]
    assert value["files"] == needed_files(recorded.precommit, segments)
    assert {"transcript.jsonl", "nonce.json", "precommit.json", "commitments/train.json"} <= set(value["files"])
    assert set(value["inputs"]) == {"toy_training.py", "train.jsonl"}
    assert value["lost"] == []
    for number in challenge.chosen:  # each drawn unit lies in one of them
        at = int(number)
        assert any(at == s.index if unit == "segment" else s.first <= at <= s.last for s in segments)


@pytest.mark.parametrize("how", ["missing", "bent", "link", "document"])
def test_a_lost_file_is_named_before_the_auditor_comes(
    recorded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """A47."""
    command, challenge = drawn(recorded, tmp_path)
    capsys.readouterr()
    segment = challenged_segments(challenge, recorded.chain())[-1]
    name = "commitments/train.json" if how == "document" else segment.start_state.files[0].path
    path = recorded.run_dir / name
    data = path.read_bytes()
    path.unlink()
    if how == "bent":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    assert main(command) == 1
    out = capsys.readouterr().out
    assert f"lost     {name}" in out
    assert "lost files: 1; their segments count as not answered" in out


def test_another_runs_challenge_is_refused(recorded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, _ = drawn(recorded, tmp_path)
    recorded.bend_tensors(15, "model", lambda values: [values[0] + 1, *values[1:]])
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "transcript_sha256" in error
    assert error.endswith("; draw one for this run with pot challenge new\n")


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"version":"pot/challenge/v1"}'])
def test_what_is_no_challenge(recorded: Any, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.json").write_bytes(data)
    arguments = ["challenge", "answer", str(recorded.run_dir), "--challenge", str(tmp_path / "c.json")]
    assert main(arguments) == 2


# a seed from a beacon ------------------------------------------------------------------------------------------------


def waiting(run: Any, number: str = "7", chain: str | None = None) -> Path:
    """The run's pre-commitment, as if it waited for a round."""
    path: Path = run.run_dir / "precommit.json"
    document = json.loads(path.read_bytes())
    document["seed_source"] = "beacon"
    document["beacon"] = {"chain": chain or PrivateBeacon().info.chain_hash(), "round": number}
    path.write_bytes(canonical_bytes(document))
    return path


def test_the_seed_of_a_run_that_waits_for_a_round(recorded: Any, tmp_path: Path) -> None:
    path, out = waiting(recorded), tmp_path / "nonce.json"
    assert main(["challenge", "seed", str(path), *beacon_files(tmp_path), "--out", str(out)]) == 0
    assert json.loads(out.read_bytes())["beacon"]["round"] == "7"
    assert read_nonce(out, recorded.precommit.sha256()).hex() == PrivateBeacon().sign(7).randomness


def test_a_run_that_waits_for_a_round_takes_nothing_else(
    recorded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = waiting(recorded), tmp_path / "nonce.json"
    seed = ["challenge", "seed", str(path), "--out", str(out)]
    assert main(seed) == 2
    assert main([*seed, "--nonce", "00" * 32]) == 2
    assert main([*seed, *beacon_files(tmp_path, 8)]) == 2
    assert "waits for round 7" in capsys.readouterr().err
    assert main([*seed, *beacon_files(tmp_path, 7, signed=8)]) == 1
    assert main([*seed, "--beacon", str(DRAND / "round-1000.json")]) == 2
    assert not out.exists()


def test_a_run_that_waits_for_a_verifier_takes_no_round(recorded: Any, tmp_path: Path) -> None:
    path = recorded.run_dir / "precommit.json"
    document = json.loads(path.read_bytes())
    document["seed_source"] = "verifier"
    path.write_bytes(canonical_bytes(document))
    seed = ["challenge", "seed", str(path), "--out", str(tmp_path / "n.json")]
    assert main([*seed, *beacon_files(tmp_path)]) == 2
    assert not (tmp_path / "n.json").exists()
