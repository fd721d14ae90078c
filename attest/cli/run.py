"""`pot status` and `pot show`: what a run directory says about its run.

Shows: how far the run is, and whether its chain holds. Does not show: that the states are what the steps give.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import typer

from attest.cli.terminal import clean

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `pot status` and `pot show`."""
    app.command()(status)
    app.command()(show)


def status(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
) -> None:
    """Say how far a run is and whether its chain holds; exit 1 if it does not, 3 if the run is not finished.

    Example: pot status run
    """
    facts = _facts(run)
    problems = facts["problems"]
    if as_json:
        typer.echo(json.dumps(facts, sort_keys=True))
    else:
        typer.echo(f"{clean(str(run))}: step {facts['step']} of {facts['steps']}, {facts['state']}")
        typer.echo(f"transcript  sha256 {facts['transcript_sha256']}, {facts['events']} lines")
        typer.echo(f"segments    {facts['segments']}, {facts['dropped']} steps repeated after interruptions")
        typer.echo(f"precommit   sha256 {facts['precommit_sha256']}, seed from {facts['seed_source']}")
        if facts["other_inputs"]:
            typer.echo(clean(f"inputs      that hold no committed records: {', '.join(facts['other_inputs'])}"))
        for gap in facts["gaps"]:
            typer.echo(clean(f"gap         no state was kept after step {gap['step']}: {gap['reason']}"))
        for fork in facts["forks"]:
            typer.echo(f"fork        line {fork['index']}: back to step {fork['step']} from step {fork['abandoned']}")
        for problem in problems:
            typer.echo(clean(f"problem     {problem['code']}: {problem['detail']}"))
    if any(problem["code"] not in ("unfinished", "torn") for problem in problems):
        raise typer.Exit(1)
    if problems:
        raise typer.Exit(3)


def show(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory."),
    steps: str = typer.Option(..., "--steps", help="A:B, the first and the last step; A may equal B."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON lines instead of text."),
) -> None:
    """Show the events of some steps: batch, loss, and the checkpoints among them.

    Example: pot show run --steps 1:25
    """
    from pot.errors import UsageError
    from pot.recording.transcript import CheckpointEvent, StepEvent, load_transcript

    match = re.fullmatch(r"([0-9]{1,15}):([0-9]{1,15})", steps, re.ASCII)
    if match is None or int(match[1]) > int(match[2]):
        raise UsageError(f"--steps {steps[:40]}: must be A:B with A at most B, such as 1:25")
    found = 0
    for event in load_transcript(run).events:
        if not isinstance(event, (StepEvent, CheckpointEvent)) or not int(match[1]) <= int(event.step) <= int(match[2]):
            continue
        found += 1
        if as_json:
            typer.echo(event.to_bytes().decode())
        elif isinstance(event, StepEvent):
            typer.echo(
                f"step {event.step}  epoch {event.epoch}  position {event.position}  records {event.records}"
                f"  batch {event.batch_blake3[:16]}  loss {event.loss if event.loss is not None else '-'}"
            )
        else:
            typer.echo(f"checkpoint {event.step}  state {event.state_blake3}")
    if not found:
        raise UsageError(f"{run}: has no event of the steps {steps}")


def _facts(run: Path) -> dict[str, Any]:
    from pot.canonical import read_file
    from pot.recording.begin import PRECOMMIT_FILE
    from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit, other_inputs
    from pot.recording.transcript import CheckpointEvent, StepEvent, check_chain, load_transcript

    path = run / PRECOMMIT_FILE
    precommit = Precommit.from_bytes(read_file(path, limit=MAX_PRECOMMIT_BYTES), what=str(path))
    transcript = load_transcript(run)
    chain = check_chain(transcript, precommit)
    last = next(
        (event for event in reversed(transcript.events) if isinstance(event, (StepEvent, CheckpointEvent))), None
    )
    broken = any(problem.code not in ("unfinished", "torn") for problem in chain.problems)
    return {
        "step": last.step if last is not None else "0",
        "steps": precommit.steps,
        "segments": str(len(chain.segments)),
        "events": str(chain.events),
        "dropped": str(chain.dropped),
        "state": "does not hold" if broken else "not finished" if chain.problems else "complete",
        "forks": [{"index": str(f.index), "step": str(f.step), "abandoned": str(f.abandoned)} for f in chain.forks],
        "gaps": [{"step": str(gap.step), "reason": gap.reason} for gap in chain.gaps],
        "problems": [{"code": problem.code, "detail": problem.detail} for problem in chain.problems],
        "precommit_sha256": precommit.sha256(),
        "transcript_sha256": transcript.sha256(),
        "seed_source": precommit.seed_source,
        "semantics": precommit.semantics,
        "other_inputs": other_inputs(precommit),
    }
