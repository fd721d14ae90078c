"""`pot zk`: what a verifier prepares for step proofs, and how anybody rebuilds it.

Shows / does not show: see `pot.zk.kit` and `pot.zk.srs`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from attest.cli.outputs import check_outputs
from attest.cli.terminal import clean, say

__all__ = ["app", "register"]

app = typer.Typer(
    name="zk",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Circuits and reference strings of step proofs.\n\nExample: pot zk setup --out kit",
)


def register(main: typer.Typer) -> None:
    """Add `pot zk` with its commands."""
    main.add_typer(app, name="zk")


@app.command()
def setup(
    out: Annotated[Path, typer.Option("--out", help="Folder for the kit; it must not exist.")],
    rate_shift: Annotated[int, typer.Option("--rate-shift", min=0, max=16, help="Learning rate 2^-N.")] = 4,
    srs: Annotated[Path | None, typer.Option("--srs", help="An SRS file to use; default: make one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Make the circuit of a 64-32-10 digit classifier's training step, with keys, under your own SRS.

    A verifier runs it and gives the folder to the prover: an SRS is sound against everybody but its maker. Put the
    printed digests into the policy (zk.circuits, zk.srs).

    Example: pot zk setup --out kit
    """
    import shutil

    from pot.canonical import read_file
    from pot.errors import Malformed, UsageError
    from pot.zk.engine import EzklEngine
    from pot.zk.kit import build_kit
    from pot.zk.spec import CircuitSpec
    from pot.zk.srs import MAX_SRS_BYTES, make_srs, srs_logrows

    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: exists already; name a new folder")
    check_outputs([out], folder=True)
    spec = CircuitSpec.digits(rate_shift=rate_shift)
    engine = EzklEngine()
    if srs is None:
        say(f"making an SRS for 2^{spec.logrows} rows")
        reference = make_srs(engine, spec.logrows)
    else:
        reference = read_file(srs, limit=MAX_SRS_BYTES)
        try:
            rows = srs_logrows(reference)
        except Malformed as error:
            raise Malformed(f"{srs}: {error}") from None
        if rows != spec.logrows:
            raise UsageError(f"{srs}: made for 2^{rows} rows, the circuit has 2^{spec.logrows}")
    say("making the circuit and its keys")
    try:
        kit = build_kit(spec, reference, out, engine)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # half a kit is none
        raise
    value = {
        "circuit_sha256": kit.circuit.sha256(),
        "srs_sha256": kit.circuit.srs_sha256,
        "vk_sha256": kit.circuit.vk_sha256,
        "parameters": spec.parameters,
    }
    typer.echo(
        json.dumps(value, sort_keys=True)
        if as_json
        else f"{clean(str(out))}: {spec.parameters} parameters, batch {spec.batch}, rate 2^-{spec.rate_shift}\n"
        f"  circuit  {value['circuit_sha256']}\n  srs      {value['srs_sha256']}"
    )


@app.command("rebuild-vk")
def rebuild_vk(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="Folder with circuit.json, settings.json, vk and srs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Rebuild circuit, settings and verifying key from shape and SRS, and compare; exit 1 if they are not equal.

    Example: pot zk rebuild-vk kit
    """
    from pot.zk.engine import EzklEngine
    from pot.zk.kit import open_kit
    from pot.zk.verifier import check_circuit

    opened = open_kit(kit)
    check_circuit(opened.verifying, EzklEngine())
    value = {"circuit_sha256": opened.circuit.sha256(), "vk_sha256": opened.circuit.vk_sha256, "same": True}
    typer.echo(
        json.dumps(value, sort_keys=True)
        if as_json
        else f"{clean(str(kit))}: the verifying key is the one of its circuit: {value['circuit_sha256']}"
    )
