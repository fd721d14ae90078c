"""`pot challenge`: what a verifier gives to a prover: the nonce of a run's seed, and which segments to show again.

Shows / does not show: see `pot.audit.challenge`.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import typer

from attest.cli.outputs import check_outputs, run_files
from attest.cli.terminal import clean, say

__all__ = ["register"]

app = typer.Typer(no_args_is_help=True, help="Draw a run's seed nonce, or the segments that an auditor re-executes.")


def register(app_: typer.Typer) -> None:
    """Add `pot challenge new` and `pot challenge seed`."""
    app_.add_typer(app, name="challenge")


@app.command()
def new(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory of a finished run."),
    out: Path = typer.Option(..., "--out", help="Where to write the challenge."),
    forged: str = typer.Option("0.01", "--forged", help="The forged fraction that must not go unnoticed."),
    detect: str = typer.Option("0.99", "--detect", help="The probability with which it must be noticed."),
    unit: str = typer.Option("segment", "--unit", help="What is drawn: segment or step."),
    nonce: str | None = typer.Option(None, "--nonce", help="64 hex digits; default: fresh random ones."),
    prover_derived: bool = typer.Option(
        False, "--prover-derived", help="Derive the nonce from the transcript; named so, and weighs less."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
) -> None:
    """Draw which segments of a run an auditor re-executes, and say what that costs and shows.

    Example: pot challenge new run --forged 0.05 --detect 0.9 --out challenge.json
    """
    from pot.audit.audit import load_run
    from pot.audit.challenge import detection, forged_count, fraction, new_challenge
    from pot.canonical import write_file
    from pot.errors import UsageError

    if unit not in ("segment", "step"):
        raise UsageError(f"--unit {unit}: must be segment or step")
    check_outputs([out], reads=run_files(run))
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
        nonce_source="prover" if prover_derived else "verifier",
    )
    sample = int(challenge.sample)
    exact = detection(population, forged_count(population, fraction(forged, "--forged")), sample)
    say(
        f"{sample} of {population} {unit}s are to be replayed; if {forged} of them are forged, one is met with"
        f" probability {float(exact):.6f}"
    )
    if 2 * sample >= population > sample:
        say("that is half of the run or more; replaying everything costs little more and leaves no chance")
    write_file(out, challenge.to_bytes())
    if as_json:
        typer.echo(challenge.to_bytes().decode())
    else:
        typer.echo(f"{clean(str(out))}: {unit}s {', '.join(challenge.chosen[:20])}{' ...' if sample > 20 else ''}")


@app.command()
def seed(
    precommit: Path = typer.Argument(..., metavar="PRECOMMIT", help="The run's precommit.json."),
    out: Path = typer.Option(..., "--out", help="Where to write the nonce: nonce.json in the run directory."),
    nonce: str | None = typer.Option(None, "--nonce", help="64 hex digits; default: fresh random ones."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
) -> None:
    """Give a run that waits for it the nonce of its seed; keep a copy for your audit statement.

    Example: pot challenge seed run/precommit.json --out run/nonce.json
    """
    from pot.canonical import read_file, write_file
    from pot.errors import UsageError
    from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit, SeedNonce

    document = Precommit.from_bytes(read_file(precommit, limit=MAX_PRECOMMIT_BYTES), what=str(precommit))
    if document.seed_source != "verifier":
        raise UsageError(f"{precommit}: this run took a nonce of its own; start it with nonce='verifier'")
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: exists already; a second nonce for one pre-commitment would be a choice of seeds")
    value = {
        "version": "pot/seed-nonce/v1",
        "precommit_sha256": document.sha256(),
        "nonce": nonce if nonce is not None else secrets.token_hex(32),
    }
    given = SeedNonce.from_value(value, what="--nonce" if nonce is not None else "nonce")
    write_file(out, given.to_bytes())
    typer.echo(json.dumps(value, sort_keys=True) if as_json else f"{clean(str(out))}: nonce {given.nonce}")
