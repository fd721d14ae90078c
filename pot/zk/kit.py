"""The files of a circuit: what a verifier needs, and the folder a prover works in.

Implements `specs/step-proof.md`, section "Kit". `VerifyingKit` holds program, settings, verifying keys and reference
string as bytes whose digests the circuit names; whoever opens one from a certificate checks those digests here. A
verifier who wants to trust nothing calls `rebuild` and compares. `ProvingKit` adds large disposable files: compiled
circuits and proving keys.

Shows: that the files are the ones the circuit names, or (`rebuild`) that the circuit is the one of its program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pot.canonical import read_file, sha256_hex, write_file
from pot.errors import Malformed, Refused, UsageError
from pot.zk.auto_program import AutoProgram, AutoStep
from pot.zk.circuit import Circuit, CircuitPart
from pot.zk.circuits.field import Vector
from pot.zk.circuits.packing import blinds_of
from pot.zk.circuits.parts import Shape
from pot.zk.family import Draft, Family, Step, family_of
from pot.zk.semantics.program import Program
from pot.zk.srs import MAX_SRS_BYTES, srs_logrows

if TYPE_CHECKING:
    from pathlib import Path

    from pot.zk.circuits.layout import Layout
    from pot.zk.engine import Engine

__all__ = [
    "KitPart",
    "ProvingKit",
    "VerifyingKit",
    "build_kit",
    "commit_points",
    "commit_vectors",
    "is_half",
    "open_kit",
    "rebuild",
]

CIRCUIT_FILE: Final = "circuit.json"
MAX_KEY_BYTES: Final = 16 << 20
MAX_SETTINGS_BYTES: Final = 1 << 20
MAX_PROGRAM_BYTES: Final = 4 << 20
MAX_GRAPH_BYTES: Final = 256 << 20

Progress = Callable[[str], None]


@dataclass(frozen=True)
class KitPart:
    """Settings and verifying key of one part."""

    settings: bytes
    verifying_key: bytes


@dataclass(frozen=True)
class VerifyingKit:
    """A circuit and the bytes its digests name."""

    circuit: Circuit
    step: Step
    parts: Sequence[KitPart]
    srs: bytes
    onnx: bytes = b""
    """Family auto: the graph, where it is there; checking proofs needs none."""

    @property
    def program(self) -> Program:
        """The program of exact integers. Raises `Refused` for a step of family auto, which has none."""
        if isinstance(self.step, AutoProgram):
            raise Refused(f"{self.step.label}: is of family auto; this needs a program of exact integers")
        return self.step

    @property
    def slack(self) -> int:
        """How far a next state may lie from the program's, in units of its grid; 0 in family auto, which has none."""
        return 0 if isinstance(self.step, AutoProgram) else max((1 << item.slack) - 1 for item in self.step.next)

    @property
    def family(self) -> Family:
        """How the step becomes vectors and parts."""
        return family_of(self.step, self.onnx)

    @property
    def layout(self) -> Layout:
        """The committed vectors, and where the integers of a program stand in them."""
        return self.family.layout(self.circuit.logrows, self.circuit.blinds)

    def check(self) -> None:
        """Compare every digest, and what the circuit says of its program. Raises `Refused` naming what differs."""
        circuit, step = self.circuit, self.step
        if len(self.parts) != len(circuit.parts):
            raise Refused(f"{len(self.parts)} parts are given, the circuit has {len(circuit.parts)}")
        named = [
            ("program", step.to_bytes(), circuit.program_sha256), ("SRS", self.srs, circuit.srs_sha256),
        ]  # fmt: skip
        for at, (part, document) in enumerate(zip(self.parts, circuit.parts, strict=True)):
            named.append((f"settings of part {at}", part.settings, document.settings_sha256))
            named.append((f"verifying key of part {at}", part.verifying_key, document.vk_sha256))
        for name, data, expected in named:
            found = sha256_hex(data)
            if found != expected:
                raise Refused(
                    f"{name}: sha256 {found}, the circuit names {expected}; take it from the circuit's source"
                )
        said = (circuit.batch, circuit.parameters, circuit.max_steps)
        if said != (step.batch, step.parameters, step.max_steps):
            raise Refused("the circuit says another batch, size or number of steps than its program")
        self.family.check(circuit)
        if srs_logrows(self.srs) != circuit.logrows:
            raise Refused("SRS: made for another number of rows than the circuit has")


@dataclass(frozen=True)
class ProvingKit:
    """A verifying kit and its folder: `program.json`, `circuit.json`, `srs`, `part-N/` with keys, auto: `step.onnx`."""

    verifying: VerifyingKit
    folder: Path

    @property
    def circuit(self) -> Circuit:
        return self.verifying.circuit

    @property
    def program(self) -> Program:
        return self.verifying.program

    @property
    def files(self) -> list[Path]:
        """What computing points needs: the inputs of a run. Not the large files that only proving takes."""
        parts = [
            self.part_folder(at) / name for at in range(len(self.circuit.parts)) for name in ("settings.json", "vk")
        ]
        own = ["program.json", CIRCUIT_FILE, "srs", *(["step.onnx"] if self.circuit.family == "auto" else [])]
        return [*(self.folder / name for name in own), *parts]

    def part_folder(self, number: int) -> Path:
        """Where the keys of one part lie."""
        return self.folder / f"part-{number}"


def build_kit(
    step: Program | AutoStep, srs: bytes, folder: Path, engine: Engine, *, logrows: int | None = None,
    columns: int | None = None, progress: Progress | None = None,
) -> ProvingKit:  # fmt: skip
    """Make all files of a circuit in `folder`; the SRS says how many rows, unless `logrows` does.

    Makes one throw-away proof of each part, which tells the length of all. Raises `EngineFailure` (also when the
    circuit does not fit its rows), `MissingExtra`, `Malformed`, `UsageError`.
    """
    document, onnx = (step.program, step.onnx) if isinstance(step, AutoStep) else (step, b"")
    shape = family_of(document, onnx).shape(logrows or srs_logrows(srs), columns, engine)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "srs", srs)
    verifying = _build(document, onnx, shape, srs, engine, folder, progress or (lambda _: None), None)
    write_file(folder / "program.json", document.to_bytes())
    if onnx:
        write_file(folder / "step.onnx", onnx)
    for at, part in enumerate(verifying.parts):
        write_file(folder / f"part-{at}" / "settings.json", part.settings)
    write_file(folder / CIRCUIT_FILE, verifying.circuit.to_bytes())  # last: without it no kit is finished
    return ProvingKit(verifying, folder)


def is_half(folder: Path) -> bool:
    """Whether a folder is what `build_kit` leaves where it is killed: files of a kit, and no circuit."""
    return not (folder / CIRCUIT_FILE).exists() and any((folder / name).exists() for name in ("srs", "part-0"))


def open_kit(folder: Path) -> ProvingKit:
    """Open a folder made by `build_kit`; digests are checked. Raises `Malformed`, `Refused`, `UsageError`."""
    if is_half(folder):
        raise UsageError(f"{folder}: holds no finished circuit (its setup was stopped?); make the kit again")
    place = folder / CIRCUIT_FILE
    circuit = Circuit.from_bytes(read_file(place, limit=MAX_SETTINGS_BYTES), what=str(place))
    program = folder / "program.json"
    kind = AutoProgram if circuit.family == "auto" else Program
    verifying = VerifyingKit(
        circuit=circuit,
        step=kind.from_bytes(read_file(program, limit=MAX_PROGRAM_BYTES), what=str(program)),
        parts=[
            KitPart(
                read_file(folder / f"part-{at}" / "settings.json", limit=MAX_SETTINGS_BYTES),
                read_file(folder / f"part-{at}" / "vk", limit=MAX_KEY_BYTES),
            )
            for at in range(len(circuit.parts))
        ],
        srs=read_file(folder / "srs", limit=MAX_SRS_BYTES),
        onnx=read_file(folder / "step.onnx", limit=MAX_GRAPH_BYTES) if circuit.family == "auto" else b"",
    )
    try:
        verifying.check()
    except Refused as error:
        raise Refused(f"{folder}: {error}") from None
    return ProvingKit(verifying, folder)


def rebuild(kit: VerifyingKit, engine: Engine) -> VerifyingKit:
    """Everything that follows from program, shape and SRS, made again; only the length of proofs is taken over.

    Family auto: from the kit's graph. Raises `UsageError` where it has none.
    """
    lengths = [part.proof_bytes for part in kit.circuit.parts]
    return _build(kit.step, kit.onnx, kit.circuit.shape, kit.srs, engine, None, lambda _: None, lengths)


def commit_vectors(kit: VerifyingKit, vectors: Sequence[Vector], engine: Engine) -> list[str]:
    """The KZG point of each vector (128 hex digits), in few child processes however many vectors there are."""
    part = kit.parts[0]
    return engine.commit(vectors, part.settings, part.verifying_key, kit.srs)


Numbered = Sequence[tuple[int, Mapping[str, Any]]]
"""Step numbers with the int64 tensors of a state (after that step; 0: the start) or a batch, by name."""


def commit_points(kit: VerifyingKit, secret: bytes, states: Numbered, batches: Numbered, engine: Engine) -> list[str]:
    """The points of each state, then of each batch, blinded by the run's secret, as a transcript holds them."""
    family, layout = kit.family, kit.layout
    groups = [
        family.state_vectors(layout, state, blinds_of(layout, secret, "state", number), number == 0)
        for number, state in states
    ]
    groups += [
        family.batch_vectors(layout, batch, blinds_of(layout, secret, "batch", number)) for number, batch in batches
    ]
    points = iter(commit_vectors(kit, [vector for group in groups for vector in group], engine))
    return ["".join(next(points) for _ in group) for group in groups]


def _build(
    step: Step, onnx: bytes, shape: Shape, srs: bytes, engine: Engine, folder: Path | None, progress: Progress,
    lengths: list[str] | None,
) -> VerifyingKit:  # fmt: skip
    plan = family_of(step, onnx).plan(shape)
    if srs_logrows(srs) != shape.logrows:
        raise Malformed(f"SRS: made for 2^{srs_logrows(srs)} rows, the circuit has 2^{shape.logrows}")
    found, documents, version = [], [], ""
    for at, draft in enumerate(plan.drafts):
        progress(f"part {at + 1} of {len(plan.drafts)}: keys")
        place = None if folder is None else folder / f"part-{at}"
        if place is not None:
            place.mkdir(exist_ok=True)
        made, document, version = _build_part(draft, srs, engine, place)
        if place is not None:
            write_file(place / "vk", made.verifying_key)
            progress(f"part {at + 1} of {len(plan.drafts)}: first proof")
            vectors = [[0] * length for length in draft.lengths]
            document["proof_bytes"] = str(len(engine.prove(place, vectors, None)))
        elif lengths is not None and at < len(lengths):
            document["proof_bytes"] = lengths[at]
        found.append(made)
        documents.append(CircuitPart(**document))
    constants = None
    if plan.constants is not None:
        (constants,) = engine.commit([plan.constants], found[0].settings, found[0].verifying_key, srs)
    circuit = Circuit(
        version="pot/circuit/v2", family="auto" if isinstance(step, AutoProgram) else "exact", label=step.label,
        program_sha256=step.sha256(), batch=step.batch, parameters=step.parameters, max_steps=step.max_steps,
        logrows=shape.logrows, columns=shape.columns, blinds=shape.blinds, ezkl_version=version,
        srs_sha256=sha256_hex(srs), constants_point=constants, parts=documents,
    )  # fmt: skip
    return VerifyingKit(circuit, step, found, srs, onnx)


def _build_part(draft: Draft, srs: bytes, engine: Engine, folder: Path | None) -> tuple[KitPart, dict[str, Any], str]:
    settings = draft.canonical(engine.settings(draft.onnx, draft.arguments))
    setup = engine.setup(draft.onnx, settings, srs, folder)
    draft.check_tables(setup.tables)
    document: dict[str, Any] = {
        "inputs": draft.inputs, "powers": draft.powers,
        "onnx_sha256": sha256_hex(draft.onnx), "settings_sha256": sha256_hex(settings),
        "vk_sha256": sha256_hex(setup.verifying_key), "proof_bytes": "0",
    }  # fmt: skip
    return KitPart(settings, setup.verifying_key), document, setup.version
