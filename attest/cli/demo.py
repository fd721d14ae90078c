"""`pot demo`: the whole story on real data, from data to verdict, and seven forgeries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attest.cli.terminal import clean, say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `pot demo`."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Audit and prove less: about a minute on two cores.")] = False,
) -> None:
    """Tell the whole story on scikit-learn's digits: commit, train, audit, exclude, certify, fine-tune, prove, verify,
    and seven forgeries that are refused. Everything stays in the folder; each command can be repeated there.

    Examples:

    pot demo

    pot demo --quick --out /tmp/story
    """
    from attest.demo.story import FULL, QUICK, Story
    from attest.demo.teller import Teller
    from pot.errors import EnvironmentFailure, UsageError

    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: exists already; name another folder with --out, or remove it")
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentFailure(f"{out}: cannot be made: {error.strerror or error}") from None
    report = Story(Teller(out.resolve()), QUICK if quick else FULL).tell()
    say("")
    say(f"both releases PASS, seven forgeries refused; everything is in {out}")
    typer.echo(clean(str(report)))
