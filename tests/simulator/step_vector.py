"""Makes the vector of one exact training step: a 4-4-2 network on two records, with every integer in between.

    python tests/simulator/step_vector.py > specs/vectors/step.json

The integers are the slow oracle's; the fast reference is compared with the file (`test_step_vector.py`).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from integer_oracle import run_slowly

from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.digits import mlp_program

RECORDS: list[dict[str, Any]] = [
    {"image": [[1, 16], [0, 7]], "label": 1},
    {"image": [[9, 2], [11, 3]], "label": 0},
]


def vector() -> dict[str, Any]:
    """Program, state, records, the tensor of every node in row-major order, next state."""
    program = mlp_program(inputs=4, hidden=4, outputs=2, batch=2, feature_bits=4, width=5, rate_shift=3)
    state, at = {}, 0
    for index in program.states:
        node = program.nodes[index]
        numbers = [(7919 * (at + one) % 2001 - 1000) * 90001 for one in range(1, node.size + 1)]  # within +-0.34
        state[str(node.name)] = np.array(numbers, np.int64).reshape(node.shape)
        at += node.size
    values = run_slowly(program, state, batch_arrays(program, RECORDS))
    ends = {str(program.nodes[item.state].name): values[item.value] for item in program.next}
    return {
        "vector": "pot/step-program/v1",
        "program_sha256": program.sha256(),
        "program": program.model_dump(mode="json", exclude_none=True),
        "state": {name: array.reshape(-1).tolist() for name, array in state.items()},
        "records": RECORDS,
        "values": [
            {"node": index, "op": node.op, "shape": node.shape, "bits": node.bits, "integers": values[index]}
            for index, node in enumerate(program.nodes)
        ],
        "next": ends,
    }


def text() -> str:
    """One line for each entry, so that a person can read it."""
    found, lines = vector(), []
    for name, value in found.items():
        if name == "program":
            parts = {k: v for k, v in value.items() if k != "nodes"}
            nodes = ",\n    ".join(json.dumps(node) for node in value["nodes"])
            lines.append(f'"program": {json.dumps(parts)[:-1]}, "nodes": [\n    {nodes}\n  ]}}')
        elif name == "values":
            nodes = ",\n    ".join(json.dumps(node) for node in value)
            lines.append(f'"values": [\n    {nodes}\n  ]')
        else:
            lines.append(f"{json.dumps(name)}: {json.dumps(value)}")
    return "{\n  " + ",\n  ".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.stdout.write(text())
