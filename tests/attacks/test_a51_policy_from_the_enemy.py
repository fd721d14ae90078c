"""A51: YAML that names types, grows, or is read in two ways; settings that come with the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from simulated_release import Simulation, written

from attest.verdict.policy import read_policy
from attest.verdict.yaml_subset import MAX_YAML_BYTES, parse_yaml
from pot.errors import LimitExceeded, Malformed

BOMB = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join('*' + p for _ in range(8))}]\n" for p, c in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: *a",
        "a: &x 1",
        "a: !!python/object/apply:os.system [id]",
        "a: !!binary aGk=",
        "a: !local x",
        "!!map {a: 1}",
        "a: 1\na: 2",
        '{"a": 1, "a": 2}',
        "a: 1\n---\na: 2",
        "%YAML 1.1\n---\na: no",
        "%TAG ! tag:x,2000:\n---\na: 1",
        "<<: {a: 1}",
        "? [a]\n: 1",
        "1: a",
        "a: [1",
        "a: 'x",
        "\ta: 1",
        "a: 18446744073709551616",
        'a: "\\ud800"',
        "",
        "# only a comment",
        "\x00",
        "...",
    ],
)
def test_yaml_that_surprises_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_yaml(text.encode(), what="policy")


def test_size_and_depth_are_capped_before_they_cost() -> None:
    with pytest.raises(LimitExceeded):
        parse_yaml(b"a" * (MAX_YAML_BYTES + 1), what="policy")
    with pytest.raises(LimitExceeded):
        parse_yaml(b"[" * 100_000, what="policy")
    with pytest.raises(Malformed):
        parse_yaml(b"\xff\xfe", what="policy")


def test_words_and_numbers_are_those_of_json() -> None:
    text = "a: no\nb: 12:30:00\nc: 0o17\nd: 2001-01-01\ne: 0.1\nf: true\ng: null\nh: 7\ni: '7'\nj: |\n  x\n"
    assert parse_yaml(text.encode(), what="policy") == {
        "a": "no", "b": "12:30:00", "c": "0o17", "d": "2001-01-01", "e": "0.1", "f": True, "g": None, "h": 7, "i": "7",
        "j": "x\n",
    }  # fmt: skip


def test_a_policy_beside_the_model_is_not_read(tmp_path: Path) -> None:
    """No ambient configuration: not in the folder, not in the working directory, not in the environment."""
    folder = written(Simulation(), tmp_path / "release")
    for place in (tmp_path, folder / ".pot"):
        (place / "policy.yaml").write_text("version: pot/policy/v1\n")
        (place / "pot.toml").write_text("policy = 'policy.yaml'\n")
    ended = subprocess.run(
        [sys.executable, "-c", "from attest.cli.main import run; run()", "verify", str(folder)],
        cwd=tmp_path,
        env={"POT_POLICY": "policy.yaml", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    assert b"--policy" in ended.stdout


def test_verifying_loads_no_heavy_library() -> None:
    program = (
        "import sys, attest.verdict.verify, attest.export.text, attest.cli.verify\n"
        "print([m for m in ('torch', 'ezkl', 'sigstore', 'fastapi', 'onnx', 'ray') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert ended.stdout.strip() == "[]"


def test_unknown_fields_and_versions_are_refused() -> None:
    for text in ("version: pot/policy/v2\n", "version: pot/policy/v1\nplugins: [x]\n", "- a\n", "just text\n"):
        with pytest.raises(Malformed):
            read_policy(text.encode())
