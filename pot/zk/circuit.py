"""The document of a circuit, and ezkl's settings made deterministic.

Implements `specs/step-proof.md`, section "Circuit". Everything that decides which steps a proof can be about is reached
from the document: program, shape, graph, settings, key, reference string and constants.

Shows (a step proof of it): there are a state and a batch behind the pinned points whose exact step is the next state.
Does not show: what the points open to; the verifier's own recomputation of opened points does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from pot.canonical import Count, Document, Hex32
from pot.errors import Malformed
from pot.recording.transcript import Point
from pot.zk.circuits.parts import MAX_PARTS, Shape
from pot.zk.semantics.program import MAX_ELEMENTS, Program

__all__ = ["ROWS_RESERVE", "Circuit", "CircuitPart", "canonical_settings", "run_arguments", "table_name"]

TABLE_RESERVE: Final = 8  # rows of a column that a lookup table cannot use (5 blinding factors and 3 of padding)
ROWS_RESERVE: Final = 64

VectorName = Annotated[
    str, StringConstraints(pattern=r"\A((before|after|batch|witness)\.[0-9]{1,3}|constants|challenge)\z")
]


PowerRun = Annotated[list[Annotated[int, Field(ge=0, le=MAX_ELEMENTS)]], Field(min_length=3, max_length=3)]


class CircuitPart(Document):
    """One part: the vectors whose points stand at the front of its proofs, and what its proofs are checked with."""

    inputs: Annotated[list[VectorName], Field(min_length=1, max_length=256)]
    powers: Annotated[list[PowerRun], Field(max_length=4096)]
    """Runs of powers of challenges in the vector `challenge`: number, stride, size. None in family auto."""
    onnx_sha256: Hex32
    settings_sha256: Hex32
    vk_sha256: Hex32
    proof_bytes: Count


class Circuit(Document):
    """What a policy pins, by `sha256()`."""

    version: Literal["pot/circuit/v2"]
    family: Literal["exact", "auto"]
    label: Annotated[str, StringConstraints(max_length=200)]
    program_sha256: Hex32
    batch: Annotated[int, Field(ge=1, le=4096)]
    parameters: Annotated[int, Field(ge=1, le=1 << 32)]
    max_steps: Annotated[int, Field(ge=1, le=1 << 20)]
    logrows: Annotated[int, Field(ge=9, le=20)]
    columns: Annotated[int, Field(ge=1, le=16)]
    blinds: Annotated[int, Field(ge=8, le=255)]
    ezkl_version: Annotated[str, StringConstraints(pattern=r"\A[0-9]{1,4}(\.[0-9]{1,4}){1,3}\z")]
    srs_sha256: Hex32
    constants_point: Point | None = None
    """Family auto has no constants."""
    parts: Annotated[list[CircuitPart], Field(min_length=1, max_length=MAX_PARTS)]

    @property
    def shape(self) -> Shape:
        """Rows, columns and blinds."""
        return Shape(self.logrows, self.columns, self.blinds)


def run_arguments(program: Program, shape: Shape) -> dict[str, Any]:
    """The arguments of ezkl's `gen_settings`: no scales, no rescaling, no decomposition, one table, no Freivalds."""
    top = (1 << program.limb_bits) - 1
    return {
        "input_scale": 0,
        "param_scale": 0,
        "scale_rebase_multiplier": 1000,
        "lookup_range": [top - (1 << shape.logrows) + TABLE_RESERVE + 1, top],
        "logrows": shape.logrows,
        "num_inner_cols": shape.columns,
        "input_visibility": "polycommit",
        "output_visibility": "public",
        "param_visibility": "fixed",
        "rebase_frac_zero_constants": True,
        "ignore_range_check_inputs_outputs": True,
        "disable_freivalds": True,
        "check_mode": "unsafe",
    }


def table_name(program: Program, shape: Shape) -> str:
    """The name under which ezkl caches the one table of the circuit; it carries both ends of its range.

    ezkl fills a lookup table to the end of its column, whatever range was asked for. The name is how the builder
    sees that the table really ends at 2^limb_bits - 1.
    """
    low, high = run_arguments(program, shape)["lookup_range"]
    return f"hardswish_1_{low}_{high}"


def canonical_settings(data: bytes, shape: Shape, inputs: int, outputs: int) -> bytes:
    """ezkl's settings with everything that varies between equal runs made canonical. Raises `Malformed`.

    Lists are sorted, the time is zero, and the row count is that of one full block: ezkl's own count is an
    overestimate (it counts inputs and outputs); a circuit that does not fit fails when its key is made.
    """
    try:
        settings = json.loads(data)
        settings["timestamp"] = 0
        rows = (1 << shape.logrows) - ROWS_RESERVE
        settings["num_rows"] = min(settings["num_rows"], rows)
        settings["total_assignments"] = min(settings["total_assignments"], rows * shape.columns)
        equations = settings["einsum_params"]["equations"]
        settings["einsum_params"]["equations"] = sorted(
            ([name, dict(sorted(dims.items()))] for name, dims in equations),
            key=lambda item: (item[0], sorted(item[1].items())),
        )
        _demand_settings(settings, inputs, outputs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed(f"ezkl's settings do not have the expected form: {error}") from None
    return json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()


def _demand_settings(settings: Mapping[str, Any], inputs: int, outputs: int) -> None:
    """The circuit must have come out as designed: one table, no range checks, nothing rescaled."""
    tables = [{"HardSwish": {"scale": 1.0}}]
    expected: dict[str, list[Any]] = {
        "required_lookups": [tables, []],
        "required_range_checks": [[]],
        "model_instance_shapes": [[[outputs]]],
        "model_input_scales": [[0] * inputs],
        "model_output_scales": [[0]],
        "num_dynamic_lookups": [0],
        "num_shuffles": [0],
    }
    for name, values in expected.items():
        if settings[name] not in values:
            raise Malformed(
                f"ezkl laid the circuit out differently: {name} is {str(settings[name])[:100]}, not {values[0]}"
            )
