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
    out: Annotated[Path, typer.Argument(metavar="KEY", help="Where to write the private key; KEY.pub goes beside it.")],
    algorithm: Annotated[KeyAlgorithm, typer.Option("--algorithm", help="Signature algorithm.")] = KeyAlgorithm.ED25519,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Make a signing key. Existing files are never overwritten.

    Example: pot keygen developer.pem
    """
    from attest.trust.keys import generate

    key = generate(algorithm.value)
    public = key.save(out)
    if as_json:
        facts = {"algorithm": key.algorithm, "hint": key.public.hint(), "private": str(out), "public": str(public)}
        typer.echo(json.dumps(facts, sort_keys=True))
    else:
        typer.echo(f"{key.algorithm} key {key.public.hint()}")
        typer.echo(clean(f"private {out} (keep it secret), public {public} (for policies)"))
