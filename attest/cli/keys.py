"""`pot keygen`: a new signing key, private half with mode 0600, public half beside it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attest.cli.terminal import clean

__all__ = ["KeyAlgorithm", "register"]


class KeyAlgorithm(StrEnum):
    """What `--algorithm` takes."""

    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256"


def register(app: typer.Typer) -> None:
    """Add `pot keygen`."""
    app.command()(keygen)


def keygen(
    key: Annotated[
        Path | None, typer.Argument(metavar="KEY", help="Where to write the private key; KEY.pub goes beside it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The same as KEY.")] = None,
    algorithm: Annotated[KeyAlgorithm, typer.Option("--algorithm", help="Signature algorithm.")] = KeyAlgorithm.ED25519,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Make a signing key. Existing files are never overwritten.

    Example: pot keygen developer.pem
    """
    from attest.trust.keys import generate
    from pot.errors import UsageError

    path = key or out
    if path is None or (key is not None and out is not None):
        raise UsageError("name one file for the private key: pot keygen developer.pem")
    made = generate(algorithm.value)
    public = made.save(path)
    if as_json:
        facts = {"algorithm": made.algorithm, "hint": made.public.hint(), "private": str(path), "public": str(public)}
        typer.echo(json.dumps(facts, sort_keys=True))
    else:
        typer.echo(f"{made.algorithm} key {made.public.hint()}")
        typer.echo(clean(f"private {path} (keep it secret), public {public} (for policies)"))
