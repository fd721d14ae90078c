"""`pot explain`: a finding code in plain words."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `pot explain`."""
    app.command()(explain)


def explain(
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="A code from a report.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List all codes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Explain a finding code: what the check is, and what to do where it does not pass.

    Example: pot explain records-tie
    """
    from attest.verdict.codes import CODES, NOT_SHOWN
    from attest.verdict.codes import explain as words
    from pot.errors import UsageError

    if list_all == (code is not None):
        raise UsageError("give one CODE, or --list")
    if code is None:
        if as_json:
            typer.echo(json.dumps({name: asdict(item) for name, item in CODES.items()}, sort_keys=True))
        else:
            for item in CODES.values():
                typer.echo(f"{item.step:2}  {item.name.ljust(20)} {item.meaning}")
        return
    text = words(code)
    if not as_json:
        typer.echo(text)
    elif code in CODES:
        typer.echo(json.dumps(asdict(CODES[code]), sort_keys=True))
    else:
        typer.echo(json.dumps({"name": code, "not_shown": NOT_SHOWN[code]}, sort_keys=True))
