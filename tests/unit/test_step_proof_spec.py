"""The training program in `specs/step-proof.md` is the example's, and the README's step is one that can be lowered."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = (ROOT / "specs" / "step-proof.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"(?ms)^<!-- (\S+) -->\n```python\n(.*?)^```$", SPEC)


def test_every_block_of_python_has_a_source() -> None:
    assert len(BLOCKS) == SPEC.count("```python\n") >= 2


def test_the_training_program_is_the_example_s() -> None:
    for source, code in BLOCKS:
        text = (ROOT / source).read_text("utf-8")
        assert code in text or textwrap.indent(code, "    ") in text


def test_the_training_program_is_whole() -> None:
    """From the kit's folder to the file that is certified; every call of it is spoken of in the table below."""
    code = "".join(code for _, code in BLOCKS)
    for call in ("open_kit(", "begin(", "ExactTrainer(", "record(", "run.step()", "trainer.released()"):
        assert call in code
    table = SPEC.split(code.splitlines()[-1])[1].split("\n\n")[1]
    for name in re.findall(r"(?m)^\| `(\w+)", table):
        assert name in code, name


def test_the_step_section_of_the_readme_leads_to_the_program() -> None:
    section = README.split("## Every step proven")[1].split("\n## ")[0]
    for word in ("pot zk secret --out secret.key", "def loss(", "pot certify parent", "step-proof.md#integer-training"):
        assert word in section, word
    assert "## Integer training" in SPEC


def test_the_step_of_the_readme_is_lowered_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from pot.zk.semantics.program import Program

    section = README.split("## Every step proven")[1]
    found = re.search(r"(?ms)^```python\n(.*?)^```", section)
    assert found is not None
    records = [{"image": [[(n + at) % 17] * 8 for at in range(8)], "label": n % 10} for n in range(16)]
    (tmp_path / "tune.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.chdir(tmp_path)
    exec(found[1], {"torch": torch, "json": json, "Path": Path, "model": torch.nn.Linear(64, 10)})
    program = Program.from_bytes((tmp_path / "program.json").read_bytes(), what="program.json")
    assert (program.batch, program.parameters) == (8, 650)
