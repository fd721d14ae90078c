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
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; must not exist. Default: demo, else demo-2, ...")
    ] = None,
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

    folder = out if out is not None else _free(Path("demo"))
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder}: exists already; name another folder with --out, or remove it")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: cannot be made: {error.strerror or error}") from None
    report = Story(Teller(folder.resolve()), QUICK if quick else FULL).tell()
    say("")
    say(f"both releases PASS, seven forgeries refused; everything is in {folder}")
    typer.echo(clean(str(report)))


def _free(folder: Path) -> Path:
    """The first of demo, demo-2, demo-3, ... that does not exist: an earlier story is never overwritten."""
    number = 1
    free = folder
    while free.exists() or free.is_symlink():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
