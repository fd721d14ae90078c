"""The circuit of one exact training step: deterministic ONNX bytes, deterministic ezkl settings, and its document.

Implements `specs/step-proof.md`, section "Circuit". The graph uses four kinds of operation that ezkl lays out without
any rounding of its own: matrix product, product, sum/difference, and one table, HardSwish at scale 1, which on
integers is max(v, 0). The table ends at 2^limb_bits - 1, so its *output* is always a limb, and only outputs are used.
Constants come in as an input whose point is pinned, so that no optimiser can fold or reorder them.

Shows (a step proof of it): there is a state and batch behind the pinned points whose exact step is the next state.
Does not show: what the points open to; the verifier's own recomputation of opened points does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import StringConstraints

from pot.canonical import Count, Document, Hex32
from pot.errors import Malformed, MissingExtra
from pot.recording.transcript import Point
from pot.zk.spec import LANES, CircuitSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "BLOCKS",
    "Circuit",
    "canonical_settings",
    "onnx_bytes",
    "proof_length",
    "run_arguments",
    "table_name",
]

BLOCKS: Final = ("before", "batch", "witness", "constants", "after", "residual")
"""The KZG points at the front of every proof, 64 bytes each: the circuit's inputs, then its outputs."""

RESERVED_ROWS: Final = 64  # rows of a column that ezkl and the proof system keep for themselves, rounded up
TABLE_RESERVE: Final = 8  # of these, the rows a lookup table cannot use (5 blinding factors and 3 of padding)


class Circuit(Document):
    """What a policy pins, by `sha256()`: everything that decides which steps a proof can be about."""

    version: Literal["pot/circuit/v1"]
    family: Literal["exact"]
    spec: CircuitSpec
    ezkl_version: Annotated[str, StringConstraints(pattern=r"\A[0-9]{1,4}(\.[0-9]{1,4}){1,3}\z")]
    onnx_sha256: Hex32
    settings_sha256: Hex32
    vk_sha256: Hex32
    srs_sha256: Hex32
    proof_bytes: Count
    constants_point: Point
    zero_point: Point


class _Graph:
    """Collects ONNX nodes under running names, so that equal specs give equal bytes."""

    def __init__(self) -> None:
        try:
            from onnx import helper, numpy_helper
        except ImportError:
            raise MissingExtra("zk", "building the circuit of a step") from None
        self._helper, self._numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.integers: list[Any] = []
        self._constants = 0
        self._offsets: dict[str, int] = {}

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def rename(self, name: str, output: str) -> None:
        self.nodes.append(self._helper.make_node("Identity", [name], [output]))

    def indices(self, *values: int) -> str:
        import numpy as np

        name = f"i{len(self.integers)}"
        self.integers.append(self._numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def part(self, name: str, start: int, stop: int, axis: int = 0) -> str:
        return self.op("Slice", name, self.indices(start), self.indices(stop), self.indices(axis))

    def shape(self, name: str, *dims: int) -> str:
        return self.op("Reshape", name, self.indices(*dims))

    def take(self, source: str, *dims: int) -> str:
        """The next elements of an input vector, in the order in which `packing` writes them."""
        size = 1
        for dim in dims:
            size *= dim
        start = self._offsets.get(source, 0)
        self._offsets[source] = start + size
        return self.shape(self.part(source, start, start + size), *dims)

    def taken(self, source: str) -> int:
        return self._offsets.get(source, 0)

    def table(self, name: str) -> str:
        return self.op("HardSwish", name)

    def product(self, left: str, right: str) -> str:
        return self.op("MatMul", left, right)

    def turned(self, name: str) -> str:
        return self.op("Transpose", name, perm=[1, 0])

    def scalar(self, kind: str, name: str) -> str:
        """`kind` with the next constant."""
        return self.op(kind, name, self.take("constants", 1))

    def model(self, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]]) -> bytes:
        from onnx import TensorProto

        def values(pairs: Sequence[tuple[str, int]]) -> list[Any]:
            return [self._helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name, size in pairs]

        graph = self._helper.make_graph(self.nodes, "step", values(inputs), values(outputs), self.integers)
        opset = [self._helper.make_opsetid("", 17)]
        data: bytes = self._helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString(
            deterministic=True
        )
        return data


def onnx_bytes(spec: CircuitSpec) -> bytes:
    """The graph of one step, byte for byte the same for equal specs. Raises `MissingExtra` without onnx."""
    g = _Graph()
    b, h, c, groups = spec.batch, spec.hidden, spec.outputs, spec.groups
    weight1 = g.take("before", spec.inputs + 1, groups)
    weight2 = g.take("before", h, c)
    bias2 = g.take("before", 1, c)
    # 1 features and labels: limbs first, then their range
    x = g.table(g.take("batch", b, spec.inputs + 1))
    y = g.table(g.take("batch", b, c))
    x_scaled = g.table(g.scalar("Mul", x))
    y_scaled = g.table(g.scalar("Mul", y))
    # 2 hidden layer, four units per element; limbs a, r1, r0 and the mark m of every unit
    z1 = g.product(x_scaled, weight1)
    parts1 = g.table(g.take("witness", b * h, 3))
    mark = g.table(g.take("witness", b, h))
    mark_scaled = g.table(g.op("Mul", mark, _nth_constant(g, 1)))
    hidden = g.op("Mul", mark, g.shape(g.part(parts1, 0, 1, 1), b, h))
    limbs1 = g.shape(g.product(parts1, g.take("constants", 3, 1)), b, h)
    marks1 = g.op("Add", g.scalar("Mul", hidden), g.scalar("Mul", mark_scaled))
    lanes1 = g.shape(g.op("Add", limbs1, marks1), b * groups, LANES)
    packed1 = g.product(lanes1, g.take("constants", LANES, 1))
    residual1 = g.scalar("Sub", g.op("Sub", g.shape(z1, b * groups, 1), packed1))
    # 3 output layer and its error g
    z2 = g.op("Add", g.product(hidden, weight2), g.scalar("Mul", bias2))
    gap = g.op("Sub", z2, g.scalar("Mul", y_scaled))
    parts2 = g.table(g.take("witness", b * c, 4))
    limbs4, offset4 = g.take("constants", 4, 1), g.take("constants", 1)
    residual2 = g.op("Sub", g.op("Sub", g.shape(gap, b * c, 1), g.product(parts2, limbs4)), offset4)
    limbs2, offset2 = g.take("constants", 2, 1), g.take("constants", 1)
    error = g.shape(g.op("Sub", g.product(g.part(parts2, 0, 2, 1), limbs2), offset2), b, c)
    grad2 = g.product(g.turned(hidden), error)
    grad_bias2 = g.product(g.take("constants", 1, b), error)
    # 4 back through the output layer, rounded, then masked
    back = g.product(error, g.turned(weight2))
    parts3 = g.table(g.take("witness", b * h, 4))
    residual3 = g.op("Sub", g.op("Sub", g.shape(back, b * h, 1), g.product(parts3, limbs4)), offset4)
    delta = g.shape(g.op("Sub", g.product(g.part(parts3, 0, 2, 1), limbs2), offset2), b, h)
    masked = g.shape(g.op("Mul", mark, delta), b * groups, LANES)
    packed3 = g.shape(g.product(masked, g.take("constants", LANES, 1)), b, groups)
    grad1 = g.product(g.turned(x), packed3)
    # 5 update
    rate2 = g.take("constants", 1)
    after1 = g.op("Sub", weight1, grad1)
    after2 = g.op("Sub", weight2, g.op("Mul", grad2, rate2))
    after_bias2 = g.op("Sub", bias2, g.op("Mul", grad_bias2, rate2))
    next_blinds = g.take("witness", spec.blinds)
    # 6 exactly one label per record; the bias feature is one
    residual_y = g.scalar("Sub", g.product(y, g.take("constants", c, 1)))
    residual_x = g.scalar("Sub", g.part(x, spec.inputs, spec.inputs + 1, 1))
    after = g.op(
        "Concat", g.shape(after1, (spec.inputs + 1) * groups), g.shape(after2, h * c), g.shape(after_bias2, c),
        next_blinds, axis=0,
    )  # fmt: skip
    residuals = ((residual1, b * groups), (residual2, b * c), (residual3, b * h), (residual_y, b), (residual_x, b))
    residual = g.op("Concat", *(g.shape(name, size) for name, size in residuals), axis=0)
    g.rename(after, "after")
    g.rename(residual, "residual")
    inputs = [
        ("before", spec.state_elements + spec.blinds),
        ("batch", spec.batch_elements + spec.blinds),
        ("witness", spec.witness_elements + 2 * spec.blinds),
        ("constants", g.taken("constants")),
    ]
    return g.model(inputs, [("after", inputs[0][1]), ("residual", spec.residual_elements)])


def _nth_constant(g: _Graph, index: int) -> str:
    return g.part("constants", index, index + 1)


def run_arguments(spec: CircuitSpec) -> dict[str, Any]:
    """The arguments of ezkl's `gen_settings`: no scales, no rescaling, no decomposition, one table, no Freivalds."""
    top = (1 << spec.limb_bits) - 1
    return {
        "input_scale": 0,
        "param_scale": 0,
        "scale_rebase_multiplier": 1000,
        "lookup_range": [top - (1 << spec.logrows) + TABLE_RESERVE + 1, top],
        "logrows": spec.logrows,
        "num_inner_cols": spec.columns,
        "input_visibility": "polycommit",
        "output_visibility": "polycommit",
        "param_visibility": "fixed",
        "rebase_frac_zero_constants": True,
        "ignore_range_check_inputs_outputs": True,
        "disable_freivalds": True,
        "check_mode": "unsafe",
    }


def proof_length(spec: CircuitSpec) -> int:
    """Bytes of every proof: fixed by the number of columns (measured; a prover refuses its own proof if it differs)."""
    return 3872 + 288 * spec.columns


def table_name(spec: CircuitSpec) -> str:
    """The name under which ezkl caches the one table of the circuit; it carries both ends of its range.

    ezkl fills a lookup table to the end of its column, whatever range was asked for. The name is how the builder
    sees that the table really ends at 2^limb_bits - 1.
    """
    low, high = run_arguments(spec)["lookup_range"]
    return f"hardswish_1_{low}_{high}"


def canonical_settings(data: bytes, spec: CircuitSpec) -> bytes:
    """ezkl's settings with everything that varies between equal runs made canonical. Raises `Malformed`.

    Lists are sorted, the time is zero, and the row count is that of one full block: ezkl's own count is an
    overestimate (it counts every slice as a copy); a circuit that does not fit fails when its key is made.
    """
    try:
        settings = json.loads(data)
        settings["timestamp"] = 0
        rows = (1 << spec.logrows) - RESERVED_ROWS
        settings["num_rows"] = min(settings["num_rows"], rows)
        settings["total_assignments"] = min(settings["total_assignments"], rows * spec.columns)
        equations = settings["einsum_params"]["equations"]
        settings["einsum_params"]["equations"] = sorted(
            ([name, dict(sorted(dims.items()))] for name, dims in equations),
            key=lambda item: (item[0], sorted(item[1].items())),
        )
        _demand_settings(settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed(f"ezkl's settings do not have the expected form: {error}") from None
    return json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()


def _demand_settings(settings: Mapping[str, Any]) -> None:
    """The circuit must have come out as designed: one table, no range checks, nothing rescaled."""
    expected: dict[str, Any] = {
        "required_lookups": [{"HardSwish": {"scale": 1.0}}],
        "required_range_checks": [],
        "model_instance_shapes": [],
        "model_input_scales": [0, 0, 0, 0],
        "model_output_scales": [0, 0],
        "num_dynamic_lookups": 0,
        "num_shuffles": 0,
    }
    for name, value in expected.items():
        if settings[name] != value:
            raise Malformed(
                f"ezkl laid the circuit out differently: {name} is {str(settings[name])[:100]}, not {value}"
            )
