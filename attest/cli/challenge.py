"""`pot challenge`: what a verifier gives to a prover: the nonce of a run's seed, and which segments to show again.

Shows / does not show: see `pot.audit.challenges.challenge` and `pot.audit.challenges.price`.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from attest.cli.outputs import check_outputs, check_run, for_this_run, refuse_existing, run_files
from attest.cli.terminal import clean, counted, say, show

if TYPE_CHECKING:
    from pot.audit.challenges.beacon import BeaconRound
    from pot.audit.challenges.challenge import Challenge, NonceSource
    from pot.audit.challenges.price import Price

__all__ = ["register"]

_TRIES: Final = 1 << 20  # what a prover can try in minutes: one changed line and one hash for each
_LISTED: Final = 20

app = typer.Typer(no_args_is_help=True, help="Draw a run's seed nonce, or the segments that an auditor re-executes.")


def register(app_: typer.Typer) -> None:
    """Add `pot challenge new`, `pot challenge answer` and `pot challenge seed`."""
    app_.add_typer(app, name="challenge")


@app.command()
def new(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory of a finished run."),
    out: Path | None = typer.Option(None, "--out", help="Where to write the challenge."),
    forged: str = typer.Option("0.01", "--forged", help="The forged fraction that must not go unnoticed."),
    detect: str = typer.Option("0.99", "--detect", help="The probability with which it must be noticed."),
    unit: str = typer.Option("segment", "--unit", help="What is drawn: segment or step."),
    nonce: str | None = typer.Option(None, "--nonce", help="64 hex digits; default: fresh random ones."),
    prover_derived: bool = typer.Option(
        False, "--prover-derived", help="Derive the nonce from the transcript; named so, and weighs less."
    ),
    beacon: Path | None = typer.Option(None, "--beacon", help="A drand round, as a file: its randomness is the nonce."),
    beacon_chain: Path | None = typer.Option(
        None, "--beacon-chain", help="The beacon's chain, if it is not quicknet: drand's info, as a file."
    ),
    seconds: float | None = typer.Option(
        None, "--seconds-per-step", min=0, help="What a step takes, for the price; default: estimated."
    ),
    start: float | None = typer.Option(
        None, "--seconds-per-start", min=0, help="What starting the program takes; default: a guess of 5."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the price and write nothing."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
) -> None:
    """Draw which segments of a run an auditor re-executes, and say what that costs and shows.

    Example: pot challenge new run --forged 0.05 --detect 0.9 --out challenge.json
    """
    from pot.audit.challenges.challenge import detection, forged_count, fraction, new_challenge
    from pot.audit.challenges.price import challenged_segments, price, seconds_per_step
    from pot.canonical import write_file
    from pot.errors import UsageError
    from pot.recording.checking.finished import load_run

    if unit not in ("segment", "step"):
        raise UsageError(f"--unit {unit}: must be segment or step")
    for option, number in (("--seconds-per-step", seconds), ("--seconds-per-start", start)):
        if number is not None and not math.isfinite(number):
            raise UsageError(f"{option}: a number of seconds is expected, such as 0.25")
    if (out is None) != dry_run:
        raise UsageError("give --out FILE for a challenge, or --dry-run for its price alone")
    check_run(run)
    if out is not None:
        check_outputs([out], reads=[*run_files(run), *(path for path in (beacon, beacon_chain) if path is not None)])
        refuse_existing([out], "a challenge drawn again would be a choice")
    source, drawn = _source(prover_derived, beacon, beacon_chain, nonce)
    precommit, transcript, chain = load_run(run)
    population = len(chain.segments) if unit == "segment" else int(precommit.steps)
    challenge = new_challenge(
        precommit.sha256(),
        transcript.sha256(),
        population,
        unit="step" if unit == "step" else "segment",
        forged=forged,
        detect=detect,
        nonce=nonce,
        nonce_source=source,
        beacon=drawn,
    )
    per_step = seconds if seconds is not None else seconds_per_step(run, chain)
    processes = 1 if precommit.layout is None else int(precommit.layout.processes)
    repeated = challenged_segments(challenge, chain)
    cost = price(repeated, per_step, estimated=seconds is None, processes=processes, start_seconds=start)
    bad, sample = forged_count(population, fraction(forged, "--forged")), int(challenge.sample)
    exact = detection(population, bad, sample)
    lines = _price_lines(challenge, cost, exact) + _grinding(challenge, bad)
    if out is None:
        show(as_json, _price_value(challenge, cost, exact), lines)
        return
    for line in lines:
        say(line)
    write_file(out, challenge.to_bytes())
    if as_json:
        typer.echo(challenge.to_bytes().decode())
    else:
        typer.echo(f"{clean(str(out))}: {unit}s {_listed(challenge.chosen)}")


def _source(
    prover_derived: bool, beacon: Path | None, chain: Path | None, nonce: str | None
) -> tuple[NonceSource, BeaconRound | None]:
    """Who gives the nonce; the round is read and its signature checked."""
    from pot.errors import UsageError

    if prover_derived + (beacon is not None) + (nonce is not None) > 1:
        raise UsageError("--nonce, --beacon and --prover-derived: one of them gives the nonce")
    if chain is not None and beacon is None:
        raise UsageError("--beacon-chain: without --beacon there is no round of that chain")
    if beacon is None:
        return ("prover" if prover_derived else "verifier"), None
    return "beacon", _checked_round(beacon, chain)


def _checked_round(beacon: Path, chain: Path | None) -> BeaconRound:
    from datetime import UTC, datetime

    from pot.audit.challenges.beacon import MAX_BEACON_BYTES, QUICKNET, read_chain, read_round, verify_round
    from pot.canonical import read_file

    info = QUICKNET
    if chain is not None:
        info = read_chain(read_file(chain, limit=MAX_BEACON_BYTES), what=str(chain))
    drawn = read_round(read_file(beacon, limit=MAX_BEACON_BYTES), info, what=str(beacon))
    verify_round(drawn, info)
    due = info.round_time(int(drawn.round))
    when = datetime.fromtimestamp(due, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if due < 1 << 36 else f"second {due}"
    say(f"round {drawn.round} of chain {info.beacon_id} ({drawn.chain[:16]}) holds; it was due at {when}")
    return drawn


def _price_lines(challenge: Challenge, cost: Price, exact: Fraction) -> list[str]:
    sample, population, unit = int(challenge.sample), int(challenge.population), challenge.unit
    if cost.minutes is None:
        time = "give --seconds-per-step to see how long that takes"
    else:
        source = "estimated from the times of the checkpoint files" if cost.estimated else "as you say"
        time = f"about {_duration(cost.minutes)} at {_rounded(cost.seconds or 0)} s a step, {source}"
    work = f"{counted(cost.segments, 'segment')}, {counted(cost.steps, 'step')} to repeat"
    source = "a guess" if cost.start_estimated else "as you say"
    starting = (
        f"about {_duration(cost.start_minutes)} for the starts at {_rounded(cost.start_seconds)} s each, {source}"
    )
    lines = [f"price: {work}, plus the start of {counted(cost.starts, 'process', 'processes')}; {time}; {starting}"]
    lines.append(
        f"{sample} of {counted(population, unit)} {'is' if sample == 1 else 'are'} to be replayed; if"
        f" {challenge.forged} of them are forged, one is met"
        f" with probability {float(exact):.6f}"
    )
    if 2 * sample >= population > sample:
        lines.append("that is half of the run or more; replaying everything costs little more and leaves no chance")
    return lines


def _duration(minutes: float) -> str:
    """Of a price, in words; two digits."""
    number, unit = (minutes * 60, "second") if minutes < 1 else (minutes, "minute")
    text = _rounded(number)
    return f"{text} {unit if text == '1' else unit + 's'}"


def _rounded(number: float) -> str:
    return f"{float(f'{number:.2g}'):.12g}"


def _price_value(challenge: Challenge, cost: Price, exact: Fraction) -> dict[str, Any]:
    value: dict[str, Any] = {
        "unit": challenge.unit,
        "population": challenge.population,
        "sample": challenge.sample,
        "segments": str(cost.segments),
        "steps": str(cost.steps),
        "starts": str(cost.starts),
        "start_minutes": repr(cost.start_minutes),
        "start_estimated": cost.start_estimated,
        "detection": repr(float(exact)),
    }
    if cost.minutes is not None:
        value |= {"minutes": repr(cost.minutes), "seconds_per_step": repr(cost.seconds), "estimated": cost.estimated}
    return value


def _grinding(challenge: Challenge, bad: int) -> list[str]:
    """What a draw is worth that the prover may repeat."""
    from pot.audit.challenges.challenge import detection_after_grinding

    if challenge.nonce_source == "beacon":
        return ["it counts only for a verifier whose policy names this chain and the first round that may be drawn"]
    if challenge.nonce_source != "prover":
        return []
    left = 1 - detection_after_grinding(int(challenge.population), bad, int(challenge.sample), _TRIES)
    escape = f"a prover that can try 2^20 times escapes with probability {float(left):.6f}"
    return [f"the nonce follows from the transcript, which the prover may change and draw again: {escape}"]


def _listed(numbers: Sequence[str]) -> str:
    return f"{', '.join(numbers[:_LISTED])}{' ...' if len(numbers) > _LISTED else ''}"


@app.command()
def answer(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory of a finished run."),
    challenge: Path = typer.Option(..., "--challenge", help="The challenge that the auditor drew."),
    beacon_chain: Path | None = typer.Option(
        None, "--beacon-chain", help="The chain of the challenge's beacon, if it is not quicknet."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
) -> None:
    """List the files that an auditor needs for a challenge, and check them; exit 1 if one is lost.

    Example: pot challenge answer run --challenge challenge.json
    """
    from pot.audit.challenges.beacon import MAX_BEACON_BYTES, read_chain
    from pot.audit.challenges.challenge import Challenge, check_challenge
    from pot.audit.challenges.price import challenged_segments, lost_files, needed_files
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file
    from pot.recording.checking.finished import load_run

    check_run(run)
    document = Challenge.from_bytes(read_file(challenge, limit=MAX_DOCUMENT_BYTES), what=str(challenge))
    known = None
    if beacon_chain is not None:
        known = read_chain(read_file(beacon_chain, limit=MAX_BEACON_BYTES), what=str(beacon_chain))
    precommit, transcript, chain = load_run(run)
    sizes = (len(chain.segments), int(precommit.steps))
    with for_this_run(challenge):
        check_challenge(document, precommit.sha256(), transcript.sha256(), *sizes, chain=known)
    segments = challenged_segments(document, chain)
    files, lost = needed_files(precommit, segments), lost_files(run, precommit, segments)
    inputs = [item.path for item in precommit.program.files] + [item.path for item in precommit.program.data_files]
    numbers = [str(segment.index) for segment in segments]
    value = {
        "segments": numbers,
        "files": files,
        "inputs": inputs,
        "lost": [{"path": item.path, "reason": item.reason} for item in lost],
    }
    lines = [f"needed   {path}" for path in files if path not in {item.path for item in lost}]
    lines += [f"lost     {item.path}: {item.reason}" for item in lost]
    lines += [f"and      {path}, from the program's folder" for path in inputs]
    what = "everything is there" if not lost else f"lost files: {len(lost)}; their segments count as not answered"
    show(as_json, value, [*lines, f"segments {_listed(numbers)}: {what}"])
    if lost:
        raise typer.Exit(1)


@app.command()
def seed(
    precommit: Path = typer.Argument(..., metavar="PRECOMMIT", help="The run's precommit.json."),
    out: Path = typer.Option(..., "--out", help="Where to write the nonce: nonce.json in the run directory."),
    nonce: str | None = typer.Option(None, "--nonce", help="64 hex digits; default: fresh random ones."),
    beacon: Path | None = typer.Option(None, "--beacon", help="The drand round that the run waits for, as a file."),
    beacon_chain: Path | None = typer.Option(
        None, "--beacon-chain", help="The beacon's chain, if it is not quicknet: drand's info, as a file."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
) -> None:
    """Give a run that waits for it the nonce of its seed; keep a copy for your audit statement.

    Example: pot challenge seed run/precommit.json --out run/nonce.json
    """
    from pot.canonical import read_file, write_file
    from pot.errors import UsageError
    from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit, SeedNonce

    document = Precommit.from_bytes(read_file(precommit, limit=MAX_PRECOMMIT_BYTES), what=str(precommit))
    if document.seed_source == "self":
        raise UsageError(f"{precommit}: this run took a nonce of its own; start it with nonce='verifier'")
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: exists already; a second nonce for one pre-commitment would be a choice of seeds")
    value: dict[str, Any] = {"version": "pot/seed-nonce/v1", "precommit_sha256": document.sha256()}
    if document.beacon is not None:
        if beacon is None or nonce is not None:
            raise UsageError(f"{precommit}: waits for round {document.beacon.round} of a beacon; give it with --beacon")
        drawn = _checked_round(beacon, beacon_chain)
        if (drawn.chain, drawn.round) != (document.beacon.chain, document.beacon.round):
            expected = f"round {document.beacon.round} of chain {document.beacon.chain}"
            raise UsageError(f"{beacon}: is round {drawn.round} of chain {drawn.chain}; this run waits for {expected}")
        value |= {"nonce": drawn.randomness, "beacon": drawn.model_dump(mode="json")}
    elif beacon is not None or beacon_chain is not None:
        raise UsageError(f"{precommit}: this run waits for a verifier's nonce, not for a beacon's round")
    else:
        value["nonce"] = nonce if nonce is not None else secrets.token_hex(32)
    given = SeedNonce.from_value(value, what="--nonce" if nonce is not None else "nonce")
    write_file(out, given.to_bytes())
    typer.echo(json.dumps(value, sort_keys=True) if as_json else f"{clean(str(out))}: nonce {given.nonce}")
