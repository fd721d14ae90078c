"""`pot zk`: circuits and reference strings of step proofs: making them, rebuilding them, saying what they are.

Shows / does not show: see `pot.zk.kit` and `pot.zk.srs`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from attest.cli.outputs import check_outputs, refuse_existing
from attest.cli.terminal import counted, say, show

if TYPE_CHECKING:
    from pot.zk.circuit import Circuit
    from pot.zk.semantics.program import Node, Program

__all__ = ["app", "register"]

app = typer.Typer(
    name="zk",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Circuits and reference strings of step proofs.\n\nExample: pot zk setup --out kit",
)
srs_app = typer.Typer(
    name="srs",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Structured reference strings.\n\nExample: pot zk srs new --logrows 13 --out srs",
)
app.add_typer(srs_app, name="srs")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Logrows = Annotated[int | None, typer.Option("--logrows", min=9, max=20, help="Rows of the circuit, 2^K.")]

_CEREMONY: Final = "class public-ceremony: sound unless all of its contributors conspired"
_OTHER: Final = (
    "class verifier for you if you made it where no prover could look, else insecure-local: whoever knows its secret"
    " can prove anything under it"
)
_INPUTS: Final = ("state", "batch", "constant")


def register(main: typer.Typer) -> None:
    """Add `pot zk` with its commands."""
    main.add_typer(app, name="zk")


@app.command()
def setup(
    out: Annotated[Path, typer.Option("--out", help="Folder for the kit; it must not exist.")],
    program: Annotated[Path | None, typer.Option("--program", help="The step's program, as a script wrote it.")] = None,
    rate_shift: Annotated[
        int | None, typer.Option("--rate-shift", min=0, max=16, help="Without --program: learning rate 2^-N.")
    ] = None,
    srs: Annotated[Path | None, typer.Option("--srs", help="An SRS file to use; default: make one.")] = None,
    logrows: Logrows = None,
    columns: Annotated[
        int | None, typer.Option("--columns", min=1, max=16, help="Inner columns; default: the cheapest that fit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the circuit of a training step, with keys, under your own SRS; default: a 64-32-10 digit classifier's.

    A verifier runs it and gives the folder to the prover: an SRS is sound against everybody but its maker. Put the
    printed digests into the policy (zk.circuits, zk.srs).

    Examples:

    pot zk setup --out kit

    pot zk setup --program program.json --srs srs --out kit
    """
    import shutil

    from pot.canonical import read_file
    from pot.errors import UsageError
    from pot.zk.circuits.parts import choose_shape
    from pot.zk.cost import limits_of, shape_cost
    from pot.zk.engine import EzklEngine
    from pot.zk.kit import build_kit
    from pot.zk.semantics.digits import digits_program
    from pot.zk.srs import MAX_SRS_BYTES, make_srs

    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: exists already; name a new folder")
    if program is not None and rate_shift is not None:
        raise UsageError("give --program or --rate-shift, one of them: a program holds its learning rate")
    check_outputs([out], folder=True)
    step = digits_program(rate_shift=4 if rate_shift is None else rate_shift) if program is None else _program(program)
    reference = None if srs is None else read_file(srs, limit=MAX_SRS_BYTES)
    if srs is not None and reference is not None:
        logrows = _rows_of(srs, reference, logrows)
    shape = choose_shape(step, logrows, columns)
    rows, cost = shape_cost(step, shape)
    engine = EzklEngine(limits_of(cost))
    say(
        f"{counted(len(rows), 'part')} of 2^{shape.logrows} rows and {shape.columns} columns: about"
        f" {2 * cost.seconds:.0f} CPU-seconds and {cost.bytes / 1e9:.2f} GB for keys and a first proof"
    )
    if reference is None:
        say(f"making an SRS for 2^{shape.logrows} rows")
        reference = make_srs(engine, shape.logrows)
    try:
        kit = build_kit(step, reference, out, engine, logrows=shape.logrows, columns=shape.columns, progress=say)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # half a kit is none
        raise
    value = _digests(kit.circuit)
    show(as_json, value, [
        f"{out}: {step.label}", f"  parameters {step.parameters:,}, {counted(len(rows), 'proof')} a step",
        f"  circuit  {value['circuit_sha256']}", f"  program  {value['program_sha256']}",
        f"  srs      {value['srs_sha256']}",
    ])  # fmt: skip


@app.command("show")
def show_what(
    what: Annotated[Path, typer.Argument(metavar="KIT|PROGRAM", help="A kit's folder, or a program document.")],
    as_json: Json = False,
) -> None:
    """Say in words what a step or its circuit computes, and what a proof of it takes.

    Examples:

    pot zk show kit

    pot zk show program.json
    """
    from pot.zk.circuits.parts import choose_shape
    from pot.zk.cost import shape_cost
    from pot.zk.kit import open_kit

    kit = open_kit(what) if what.is_dir() else None
    program = kit.program if kit is not None else _program(what)
    shape = kit.circuit.shape if kit is not None else choose_shape(program)
    rows, cost = shape_cost(program, shape)
    value: dict[str, Any] = {
        **_described(program),
        "logrows": shape.logrows,
        "columns": shape.columns,
        "rows": rows,
        "cpu_seconds": round(cost.seconds, 1),
        "gigabytes": round(cost.bytes / 1e9, 2),
        **({"program_sha256": program.sha256()} if kit is None else _digests(kit.circuit)),
    }
    show(as_json, value, _words(program, value))


@app.command("rebuild-vk")
def rebuild_vk(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit's folder.")], as_json: Json = False
) -> None:
    """Rebuild circuits, settings and verifying keys from program and SRS, and compare; exit 1 if they are not equal.

    Example: pot zk rebuild-vk kit
    """
    from pot.zk.engine import EzklEngine
    from pot.zk.kit import open_kit
    from pot.zk.verifier import check_circuit

    opened = open_kit(kit)
    check_circuit(opened.verifying, EzklEngine())
    value = {**_digests(opened.circuit), "same": True}
    keys = "the verifying key is the one" if len(opened.circuit.parts) == 1 else "the verifying keys are those"
    show(as_json, value, [f"{kit}: {keys} of its program: circuit {value['circuit_sha256']}"])


@srs_app.command("new")
def srs_new(
    logrows: Annotated[int, typer.Option("--logrows", min=9, max=20, help="For circuits of 2^K rows.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write, 128 * 2^K bytes; it must not exist.")],
    as_json: Json = False,
) -> None:
    """Make a reference string whose secret only this process knew: class verifier, for whoever runs it.

    Run it as the verifier, where no prover can read memory. Any kit of these rows can be built on the file.

    Example: pot zk srs new --logrows 13 --out srs
    """
    from pot.canonical import sha256_hex, write_file
    from pot.zk.engine import EzklEngine
    from pot.zk.srs import make_srs

    refuse_existing([out], "kits may have been made with it")
    check_outputs([out])
    say(f"making an SRS for 2^{logrows} rows")
    made = make_srs(EzklEngine(), logrows)
    write_file(out, made)
    value = {"class": "verifier", "logrows": logrows, "sha256": sha256_hex(made)}
    show(as_json, value, [
        f"{out}: SRS for circuits of 2^{logrows} rows", f"  sha256   {value['sha256']}", "  class    verifier",
        "its secret was in this machine's memory and is gone: sound against every prover who could not look there",
        "give provers the file; put its digest and class into your policy (zk.srs)",
    ])  # fmt: skip


@srs_app.command("show")
def srs_show(file: Annotated[Path, typer.Argument(metavar="FILE", help="An SRS file.")], as_json: Json = False) -> None:
    """Say for how many rows a reference string is, its digest, and what it is worth.

    Example: pot zk srs show srs
    """
    from pot.canonical import read_file, sha256_hex
    from pot.zk.srs import MAX_SRS_BYTES, classify

    data = read_file(file, limit=MAX_SRS_BYTES)
    rows, digest = _rows_of(file, data, None), sha256_hex(data)
    known = classify(digest, {}) == "public-ceremony"
    value = {"class": "public-ceremony" if known else None, "logrows": rows, "sha256": digest}
    worth = _CEREMONY if known else _OTHER
    show(as_json, value, [f"{file}: SRS for circuits of 2^{rows} rows", f"  sha256   {digest}", f"  worth    {worth}"])


def _program(path: Path) -> Program:
    from pot.canonical import read_file
    from pot.zk.kit import MAX_PROGRAM_BYTES
    from pot.zk.semantics.program import Program

    return Program.from_bytes(read_file(path, limit=MAX_PROGRAM_BYTES), what=str(path))


def _rows_of(path: Path, data: bytes, wanted: int | None) -> int:
    """k of an SRS file. Raises `Malformed`, and `UsageError` where other rows are wanted."""
    from pot.errors import Malformed, UsageError
    from pot.zk.srs import srs_logrows

    try:
        rows = srs_logrows(data)
    except Malformed as error:
        raise Malformed(f"{path}: {error}") from None
    if wanted not in (None, rows):
        raise UsageError(f"{path}: made for 2^{rows} rows, --logrows asks for 2^{wanted}")
    return rows


def _digests(circuit: Circuit) -> dict[str, Any]:
    return {
        "circuit_sha256": circuit.sha256(),
        "program_sha256": circuit.program_sha256,
        "srs_sha256": circuit.srs_sha256,
        "vk_sha256": [part.vk_sha256 for part in circuit.parts],
        "proof_bytes": [int(part.proof_bytes) for part in circuit.parts],
        "parameters": circuit.parameters,
    }


def _described(program: Program) -> dict[str, Any]:
    nodes = program.nodes
    rounded = [node for node in nodes if node.limbs is not None]
    return {
        "label": program.label,
        "batch": program.batch,
        "parameters": program.parameters,
        "max_steps": program.max_steps,
        "state": [_tensor(nodes[index]) for index in program.states],
        "fields": [_tensor(nodes[index]) for index in program.batches],
        "operations": dict(sorted(Counter(node.op for node in nodes if node.op not in _INPUTS).items())),
        "rounded_tensors": len(rounded),
        "rounded_values": sum(node.size for node in rounded),
        "slack": max(item.slack for item in program.next),
    }


def _tensor(node: Node) -> dict[str, Any]:
    return {"name": node.name, "shape": node.shape, "bits": node.bits, "width": node.width, "kind": node.kind}


def _words(program: Program, value: dict[str, Any]) -> list[str]:
    lines = [value["label"] or "a step without a name"]
    lines += [f"  state    {_said(tensor)}" for tensor in value["state"]]
    lines += [f"  field    {_said(tensor)}" for tensor in value["fields"]]
    lines.append("  computes " + ", ".join(f"{count} {op}" for op, count in value["operations"].items()))
    lines.append(f"  rounds   {counted(value['rounded_tensors'], 'tensor')}, {value['rounded_values']:,} values")
    slack = value["slack"]
    exact = "is the exact step" if not slack else f"lies within 2^{slack} units of the exact step"
    lines.append(f"  proves   that the next state {exact}; at most {program.max_steps:,} steps of a run")
    rows = ", ".join(f"{rows:,}" for rows in value["rows"])
    lines.append(
        f"  circuit  {counted(len(value['rows']), 'part')}: {rows} of 2^{value['logrows']} rows,"
        f" {value['columns']} columns"
    )
    sizes = value.get("proof_bytes")
    lines.append(
        f"  proof    about {value['cpu_seconds']} CPU-seconds and {value['gigabytes']} GB"
        + (f"; {sum(sizes):,} bytes" if sizes else "")
    )
    digests = ("program_sha256", "circuit_sha256", "srs_sha256")
    return lines + [f"  {name[:-7]:8} {value[name]}" for name in digests if name in value]


def _said(tensor: dict[str, Any]) -> str:
    size = " x ".join(str(length) for length in tensor["shape"]) or "one"
    if tensor["kind"] == "marks":
        return f"{tensor['name']}: {size}, one of {tensor['shape'][-1]} marked"
    low = {"unsigned": "0 <= v", "signed": f"-2^{tensor['width']} <= v"}.get(tensor["kind"], "|v|")
    return f"{tensor['name']}: {size} integers v over 2^{tensor['bits']}, {low} < 2^{tensor['width']}"
