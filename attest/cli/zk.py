"""`pot zk`: circuits of step proofs: making them, rebuilding them, saying what they are.

Shows / does not show: see `pot.zk.kit` and `pot.zk.srs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from attest.cli.outputs import check_outputs, refuse_existing
from attest.cli.terminal import counted, say, show
from attest.cli.zk_folder import finished_as, refuse_kit
from attest.cli.zk_srs import Json, rows_of, srs_app
from attest.cli.zk_words import described, words

if TYPE_CHECKING:
    from pot.zk.auto_program import AutoStep
    from pot.zk.circuit import Circuit
    from pot.zk.circuits.parts import Shape
    from pot.zk.circuits.proof_cost import Cost
    from pot.zk.engine import Engine
    from pot.zk.semantics.program import Program

__all__ = ["app", "register"]

app = typer.Typer(
    name="zk",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Circuits and reference strings of step proofs.\n\nExample: pot zk setup --out kit",
)
app.add_typer(srs_app, name="srs")

Logrows = Annotated[int | None, typer.Option("--logrows", min=9, max=20, help="Rows of the circuit, 2^K.")]

_AUTO: Final = "pot/auto-program/v1"


def register(main: typer.Typer) -> None:
    """Add `pot zk` with its commands."""
    main.add_typer(app, name="zk")


@app.command()
def setup(
    out: Annotated[Path, typer.Option("--out", help="Folder for the kit; it must not exist.")],
    program: Annotated[Path | None, typer.Option("--program", help="The step's program, as a script wrote it.")] = None,
    graph: Annotated[
        Path | None, typer.Option("--graph", help="A program of family auto: its ONNX, as the script wrote it.")
    ] = None,
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

    pot zk setup --program program.json --graph step.onnx --out kit
    """
    from pot.canonical import read_file
    from pot.errors import UsageError
    from pot.zk.cost import limits_of
    from pot.zk.engine import EzklEngine
    from pot.zk.kit import build_kit
    from pot.zk.semantics.digits import digits_program
    from pot.zk.srs import MAX_SRS_BYTES, make_srs

    refuse_kit(out)
    if graph is not None and program is None:
        raise UsageError("--graph belongs to a program of family auto: give its --program too")
    if program is not None and rate_shift is not None:
        raise UsageError("give --program or --rate-shift, one of them: a program holds its learning rate")
    check_outputs([out], folder=True)
    if program is None:
        step: Program | AutoStep = digits_program(rate_shift=4 if rate_shift is None else rate_shift)
    else:
        step = _step(program, graph)
    reference = None if srs is None else read_file(srs, limit=MAX_SRS_BYTES)
    if srs is not None and reference is not None:
        logrows = rows_of(srs, reference, logrows)
    shape, rows, cost = _shape(step, logrows, columns, EzklEngine())
    engine = EzklEngine(limits_of(cost))
    say(
        f"{counted(len(rows), 'part')} of 2^{shape.logrows} rows and {shape.columns} columns: about"
        f" {2 * cost.seconds:.0f} CPU-seconds and {cost.bytes / 1e9:.2f} GB for keys and a first proof"
    )
    try:
        with finished_as(out) as part:
            if reference is None:
                say(f"making an SRS for 2^{shape.logrows} rows")
                reference = make_srs(engine, shape.logrows)
            kit = build_kit(step, reference, part, engine, logrows=shape.logrows, columns=shape.columns, progress=say)
    except KeyboardInterrupt:
        say(f"pot: nothing of {out} is kept; a setup that is stopped begins anew")
        raise
    value = _digests(kit.circuit)
    show(as_json, value, [
        f"{out}: {kit.circuit.label}", f"  parameters {kit.circuit.parameters:,}, {counted(len(rows), 'proof')} a step",
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
    from pot.zk.cost import kit_cost, kit_rows, shape_cost
    from pot.zk.kit import open_kit

    if what.is_dir():
        kit = open_kit(what)
        shape, step, graph = kit.circuit.shape, kit.verifying.step, kit.verifying.onnx
        rows, cost, digests = kit_rows(kit.verifying), kit_cost(kit.verifying), _digests(kit.circuit)
    else:
        program, graph = _program(what), b""
        shape, step, digests = choose_shape(program), program, {"program_sha256": program.sha256()}
        rows, cost = shape_cost(program, shape)
    value: dict[str, Any] = {
        **described(step, graph),
        "logrows": shape.logrows,
        "columns": shape.columns,
        "rows": rows,
        "cpu_seconds": round(cost.seconds, 1),
        "gigabytes": round(cost.bytes / 1e9, 2),
        **digests,
    }
    show(as_json, value, words(value))


@app.command("secret")
def new_secret(
    out: Annotated[Path, typer.Option("--out", help="The file to write, 32 random bytes; it must not exist.")],
    as_json: Json = False,
) -> None:
    """Make the secret of one run: it blinds the run's points, and proving needs it. Take a new one for each run.

    The program that trains puts its SHA-256 into the pre-commitment (begin(secret_sha256=...)).

    Example: pot zk secret --out secret.key
    """
    import secrets

    from pot.canonical import sha256_hex, write_file
    from pot.zk.runs.segment import SECRET_BYTES

    refuse_existing([out], "a run may need it")
    made = secrets.token_bytes(SECRET_BYTES)
    write_file(out, made, mode=0o600)
    value = {"secret": str(out), "sha256": sha256_hex(made)}
    show(
        as_json,
        value,
        [f"{out}: secret of one run (keep it, and show it to no verifier)", f"  sha256   {value['sha256']}"],
    )


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


def _program(path: Path) -> Program:
    """A program of exact integers."""
    from pot.canonical import parse, read_file
    from pot.errors import UsageError
    from pot.zk.kit import MAX_PROGRAM_BYTES
    from pot.zk.semantics.program import Program

    data = read_file(path, limit=MAX_PROGRAM_BYTES)
    value = parse(data, what=str(path), limit=MAX_PROGRAM_BYTES)
    if isinstance(value, dict) and value.get("version") == _AUTO:
        raise UsageError(f"{path}: is of family auto, whose step is a graph: make its kit, with --graph step.onnx")
    return Program.from_bytes(data, what=str(path))


def _step(path: Path, graph: Path | None) -> Program | AutoStep:
    """The step of a program's document; of family auto where its graph is given."""
    if graph is None:
        return _program(path)
    from pot.canonical import read_file
    from pot.zk.auto_program import AutoProgram, AutoStep
    from pot.zk.kit import MAX_GRAPH_BYTES, MAX_PROGRAM_BYTES

    program = AutoProgram.from_bytes(read_file(path, limit=MAX_PROGRAM_BYTES), what=str(path))
    return AutoStep(program, read_file(graph, limit=MAX_GRAPH_BYTES))


def _shape(
    step: Program | AutoStep, logrows: int | None, columns: int | None, engine: Engine
) -> tuple[Shape, list[int], Cost]:
    """Rows and columns of a circuit to be made, the rows that its parts take, and what a step costs."""
    from pot.zk.auto_cost import auto_cost
    from pot.zk.auto_family import AutoFamily
    from pot.zk.auto_program import AutoStep
    from pot.zk.circuits.parts import choose_shape
    from pot.zk.cost import shape_cost

    if not isinstance(step, AutoStep):
        chosen = choose_shape(step, logrows, columns)
        return chosen, *shape_cost(step, chosen)
    family = AutoFamily(step.program, step.onnx)
    shape = family.shape(logrows or family.least_logrows(columns, engine), columns, engine)
    rows = family.rows(shape, engine)
    return shape, [rows], auto_cost(shape.logrows, shape.columns, rows)


def _digests(circuit: Circuit) -> dict[str, Any]:
    return {
        "circuit_sha256": circuit.sha256(),
        "program_sha256": circuit.program_sha256,
        "srs_sha256": circuit.srs_sha256,
        "vk_sha256": [part.vk_sha256 for part in circuit.parts],
        "proof_bytes": [int(part.proof_bytes) for part in circuit.parts],
        "parameters": circuit.parameters,
    }
