"""Family auto, as kit, prover and verifier see it: one part, three vectors in, the next state out, nothing public.

Implements `specs/step-proof.md`, section "Family auto". A step commits to `before`, `batch`, the blinds of the next
state (`witness.0`) and `after`; ezkl proves the graph between the points of these vectors. Run and step are not inside
the statement: only the points, which the transcript holds, tie a proof to its place.

Shows: nothing alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pot.canonical import sha256_hex
from pot.errors import Malformed, MissingExtra, Refused, UsageError
from pot.zk.auto_cost import blocks
from pot.zk.auto_graph import check_graph
from pot.zk.auto_program import AutoProgram
from pot.zk.circuit import Circuit, CircuitPart
from pot.zk.circuits.field import MODULUS, Vector
from pot.zk.circuits.layout import RESERVED, Layout
from pot.zk.circuits.packing import blinds_of
from pot.zk.circuits.parts import MAX_LOGROWS, MIN_LOGROWS, Shape
from pot.zk.family import Draft, GridTensor, PartVectors, Plan, StepVectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.engine import Engine

    Ints = NDArray[np.int64]

__all__ = ["BLINDS", "INPUTS", "AutoFamily", "read_settings"]

BLINDS: Final = 16
"""Of each vector. A state's blinds stand behind three points, `witness.0` among them, and are opened thrice a proof."""
INPUTS: Final = ["before.0", "batch.0", "witness.0", "after.0"]
"""Vectors whose points stand at the front of a proof; the last is the output."""
COLUMNS: Final = (2, 3, 4, 6, 8)
"""Tried where nobody says; what does not fit the rows of one block takes as many columns again."""


class AutoFamily:
    """`Family` of an `AutoProgram`. `onnx`: its graph, needed to make or rebuild a circuit."""

    visibilities: Final = ("KZGCommit", "KZGCommit")

    def __init__(self, program: AutoProgram, onnx: bytes = b"") -> None:
        self._program = program
        self._onnx = onnx

    @property
    def state_tensors(self) -> dict[str, GridTensor]:
        return {tensor.name: GridTensor(tensor.shape, self._program.scale) for tensor in self._program.state}

    @property
    def field_names(self) -> list[str]:
        return [field.name for field in self._program.fields]

    def batch_arrays(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Ints]:
        return self._program.batch_arrays(records)

    def layout(self, logrows: int, blinds: int) -> Layout:
        fields = sum(field.size for field in self._program.fields)
        longest = max(self._program.parameters, fields) + blinds
        if longest > (1 << logrows) - RESERVED:
            raise UsageError(f"a vector of {longest} elements does not fit 2^{logrows} rows: take more rows")
        return Layout(logrows, blinds, {}, {"state": [self._program.parameters], "batch": [fields], "witness": [0]})

    def shape(self, logrows: int, columns: int | None, engine: Engine) -> Shape:
        if not MIN_LOGROWS <= logrows <= MAX_LOGROWS or logrows <= self._program.limb_bits:
            raise UsageError(f"2^{logrows} rows: its limbs need {self._program.limb_bits + 1} to {MAX_LOGROWS}")
        if columns is not None:
            return Shape(logrows, columns, BLINDS)
        tried = (Shape(logrows, count, BLINDS) for count in COLUMNS)
        return min(tried, key=lambda shape: blocks(logrows, self.rows(shape, engine)) * shape.columns)

    def least_logrows(self, columns: int | None, engine: Engine) -> int:
        """The fewest rows in which a step fits one block of the columns, or of any that are tried."""
        widest, least = columns or COLUMNS[-1], max(MIN_LOGROWS, self._program.limb_bits + 1)
        for logrows in range(least, MAX_LOGROWS + 1):
            longest = max(self._program.parameters, sum(field.size for field in self._program.fields)) + BLINDS
            shape = Shape(logrows, widest, BLINDS)
            if longest <= (1 << logrows) - RESERVED and blocks(logrows, self.rows(shape, engine)) == 1:
                return logrows
        raise UsageError(f"the step does not fit 2^{MAX_LOGROWS} rows of {widest} columns: take a smaller network")

    def rows(self, shape: Shape, engine: Engine) -> int:
        """The rows that a circuit of this shape takes, as ezkl counts them."""
        found: int = read_settings(engine.settings(self._graph(), self._arguments(shape)))["num_rows"]
        return found

    def plan(self, shape: Shape) -> Plan:
        layout, graph = self.layout(shape.logrows, shape.blinds), self._graph()
        check_graph(graph, shape.blinds)  # it may come from others
        draft = Draft(
            onnx=graph,
            inputs=INPUTS,
            powers=[],
            lengths=[layout.length(name) for name in INPUTS[:-1]],
            arguments=self._arguments(shape),
            canonical=lambda raw: self._canonical(raw, shape),
            check_tables=lambda _: None,  # ezkl's own; their names are in the settings
        )
        return Plan([draft], None)

    def check(self, circuit: Circuit) -> None:
        part = circuit.parts[0]
        if circuit.family != "auto" or circuit.constants_point is not None or len(circuit.parts) != 1 or part.powers:
            raise Refused("the circuit is none of family auto: that has one part, no constants and no challenge")
        if part.onnx_sha256 != self._program.onnx_sha256:
            raise Refused("the circuit was made of another graph than its program names")
        if circuit.blinds < BLINDS:
            raise Refused(f"the circuit has {circuit.blinds} blinds, {BLINDS} are needed")
        if self._onnx:
            self._graph()

    def reads_all(self, circuit: Circuit) -> bool:
        return [part.inputs for part in circuit.parts] == [INPUTS]

    def pinned(self, circuit: Circuit) -> dict[str, str]:
        return {}

    def state_vectors(
        self, layout: Layout, state: Mapping[str, Ints], blinds: list[Vector], start: bool
    ) -> list[Vector]:
        return [_blinded(self._program.state_integers(state, start=start), blinds, layout)]

    def batch_vectors(self, layout: Layout, batch: Mapping[str, Ints], blinds: list[Vector]) -> list[Vector]:
        return [_blinded(self._program.batch_integers(batch), blinds, layout)]

    def next_state(
        self, state: Mapping[str, Ints], batch: Mapping[str, Ints], after: Mapping[str, Ints] | None
    ) -> Mapping[str, Ints]:
        if after is None:
            raise UsageError(
                "a step of family auto needs its recorded next state: pot.zk.auto_steps.next_state makes it"
            )
        return after

    def step(
        self, circuit: Circuit, secret: bytes, number: int, state: Mapping[str, Ints], batch: Mapping[str, Ints],
        after: Mapping[str, Ints] | None,
    ) -> StepVectors:  # fmt: skip
        layout = self.layout(circuit.logrows, circuit.blinds)
        found = self.next_state(state, batch, after)
        blinds = blinds_of(layout, secret, "state", number)
        (before,) = self.state_vectors(layout, state, blinds_of(layout, secret, "state", number - 1), False)
        (made,) = self.state_vectors(layout, found, blinds, False)
        (given,) = self.batch_vectors(layout, batch, blinds_of(layout, secret, "batch", number))
        vectors = {"before.0": before, "batch.0": given, "witness.0": blinds[0], "after.0": made}
        return StepVectors(vectors, self.distance(state, batch, found) if self._onnx else None)

    def part(self, vectors: Mapping[str, Vector], challenges: Vector, part: CircuitPart) -> PartVectors:
        *given, result = (vectors[name] for name in part.inputs)
        return PartVectors(given, result, [])

    def public(self, challenges: Vector, part: CircuitPart) -> Vector:
        return []

    def distance(self, state: Mapping[str, Ints], batch: Mapping[str, Ints], after: Mapping[str, Ints]) -> float:
        """How far `after` lies from the graph in floats, at most, in units of the grid. Raises `MissingExtra`."""
        try:
            import onnx
            from onnx.reference import ReferenceEvaluator
        except ImportError:
            raise MissingExtra("zk", "running the graph of a step") from None
        import numpy as np

        unit = 1 << self._program.scale
        numbers = [self._program.state_integers(state), self._program.batch_integers(batch), []]
        given = [np.array([*found, *[0] * BLINDS], np.float32) / np.float32(unit) for found in numbers]
        names = ("before", "batch", "blinds")
        evaluator = ReferenceEvaluator(onnx.load_from_string(self._graph()))
        (wanted,) = evaluator.run(None, dict(zip(names, given, strict=True)))
        found = np.array(self._program.state_integers(after), np.float64)
        return float(np.abs(found - np.asarray(wanted, np.float64)[:-BLINDS] * unit).max())

    def _graph(self) -> bytes:
        if not self._onnx:
            raise UsageError("the circuit of family auto is made from its graph: give step.onnx, it lies in the kit")
        if sha256_hex(self._onnx) != self._program.onnx_sha256:
            raise Refused(f"the graph has another sha256 than the program names: {self._program.onnx_sha256}")
        return self._onnx

    def _arguments(self, shape: Shape) -> dict[str, Any]:
        """Of ezkl's `gen_settings`. Its own range checks of inputs and outputs are off: blinds have no range."""
        program, lookup = self._program, 1 << self._program.lookup_bits
        return {
            "input_scale": program.scale,
            "param_scale": program.scale,
            "scale_rebase_multiplier": 1,
            "lookup_range": [-lookup, lookup],
            "logrows": shape.logrows,
            "num_inner_cols": shape.columns,
            "decomp_base": 1 << program.limb_bits,
            "decomp_legs": program.limbs,
            "input_visibility": "polycommit",
            "output_visibility": "polycommit",
            "param_visibility": "fixed",
            "rebase_frac_zero_constants": True,
            "ignore_range_check_inputs_outputs": True,
            "disable_freivalds": True,
            "check_mode": "unsafe",
        }

    def _canonical(self, raw: bytes, shape: Shape) -> bytes:
        """Settings in one order, without the time. Raises `Malformed` where before and after have unequal scales."""
        settings = read_settings(raw)
        try:
            settings["timestamp"] = 0
            for name in ("required_lookups", "required_range_checks"):
                settings[name] = sorted(settings[name], key=lambda item: json.dumps(item, sort_keys=True))
            equations = [[name, dict(sorted(sizes.items()))] for name, sizes in settings["einsum_params"]["equations"]]
            settings["einsum_params"]["equations"] = sorted(
                equations, key=lambda item: (item[0], sorted(item[1].items()))
            )
            scale = self._program.scale
            scales = [settings["model_input_scales"], settings["model_output_scales"]]
            lengths = settings["module_sizes"]["polycommit"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Malformed(f"ezkl's settings do not have the expected form: {error}") from None
        if scales != [[scale] * 3, [scale]]:  # equal points would not link two steps
            raise Malformed(f"ezkl gave the next state another scale than the state: {scales}")
        layout = self.layout(shape.logrows, shape.blinds)
        if lengths != [layout.length(name) for name in INPUTS]:
            raise Malformed(f"ezkl commits to vectors of {str(lengths)[:100]} elements, not to those of the step")
        return json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()


def read_settings(raw: bytes) -> dict[str, Any]:
    """ezkl's settings; `num_rows` is how many rows the circuit takes in all blocks. Raises `Malformed`."""
    try:
        found = json.loads(raw)
        found["num_rows"] = int(found["num_rows"])
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"ezkl's settings do not have the expected form: {error}") from None
    settings: dict[str, Any] = found
    return settings


def _blinded(integers: Sequence[int], blinds: list[Vector], layout: Layout) -> Vector:
    if len(blinds) != 1 or len(blinds[0]) != layout.blinds:
        raise Malformed(f"{layout.blinds} blinds are needed for one vector")
    return [*(value % MODULUS for value in integers), *blinds[0]]
