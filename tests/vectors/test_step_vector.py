"""The published vector of one step: current, right by the reference, and right by a few lines written from it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from step_vector import text

from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.exact import run
from pot.zk.semantics.program import Program

FILE = Path(__file__).parents[2] / "specs" / "vectors" / "step.json"


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def test_the_file_is_what_its_script_writes() -> None:
    assert FILE.read_text(encoding="utf-8") == text()


def test_the_reference_finds_every_integer_of_the_vector() -> None:
    vector = stored()
    program = Program.from_value(vector["program"], what="vector")
    assert program.sha256() == vector["program_sha256"]
    shapes = {str(program.nodes[at].name): program.nodes[at].shape for at in program.states}
    state = {name: np.array(flat, np.int64).reshape(shapes[name]) for name, flat in vector["state"].items()}
    found = run(program, state, batch_arrays(program, vector["records"]))
    for index, entry in enumerate(vector["values"]):
        assert found.values[index].reshape(-1).tolist() == entry["integers"], entry["op"]
    assert {name: array.reshape(-1).tolist() for name, array in found.next.items()} == vector["next"]


def test_a_stranger_gets_the_next_state_by_hand() -> None:
    """Linear, ReLU, Linear, half the squared error, SGD 2^-3 on two records, in Python integers, without a program."""
    vector = stored()
    w1, b1, w2, b2 = (vector["state"][name] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))

    def rounded(value: int, count: int) -> int:
        return (value + 2 ** (count - 1)) // 2**count

    moves: dict[str, list[int]] = {name: [0] * len(flat) for name, flat in vector["state"].items()}
    for record in vector["records"]:
        x = [pixel for row in record["image"] for pixel in row]  # 4 fraction bits
        q = [rounded(sum(w1[4 * j + i] * x[i] for i in range(4)) + b1[j] * 2**4, 32 - 7) for j in range(4)]
        h = [max(v, 0) for v in q]  # 7 bits
        z = [sum(w2[4 * k + j] * h[j] for j in range(4)) + b2[k] * 2**7 for k in range(2)]  # 35 bits
        g = [rounded(z[k] - (k == record["label"]) * 2**35, 35 - 10) for k in range(2)]  # 10 bits
        d = [(q[j] > 0) * rounded(sum(g[k] * w2[4 * k + j] for k in range(2)), 38 - 11) for j in range(4)]  # 11 bits
        # over 2 records at rate 2^-3: sums of a and b fraction bits move weights of 28 by 2^(28 - 4 - a - b)
        for j in range(4):
            for i in range(4):
                moves["0.weight"][4 * j + i] += d[j] * x[i] * 2 ** (24 - 11 - 4)
            moves["0.bias"][j] += d[j] * 2 ** (24 - 11)
        for k in range(2):
            for j in range(4):
                moves["2.weight"][4 * k + j] += g[k] * h[j] * 2 ** (24 - 10 - 7)
            moves["2.bias"][k] += g[k] * 2 ** (24 - 10)
    for name, flat in vector["state"].items():
        assert [v - move for v, move in zip(flat, moves[name], strict=True)] == vector["next"][name], name
    assert all(any(moves[name]) for name in moves)
