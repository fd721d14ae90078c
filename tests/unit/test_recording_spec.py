"""The code in `specs/recording.md` is that of the examples, and every example of a recording is spoken of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "specs" / "recording.md").read_text("utf-8")
BLOCKS = re.findall(r"(?ms)^<!-- (\S+) -->\n```python\n(.*?)^```$", TEXT)


def test_every_block_has_a_source() -> None:
    assert len(BLOCKS) == TEXT.count("```python\n") >= 8


@pytest.mark.parametrize(("source", "code"), BLOCKS, ids=[f"{source}-{at}" for at, (source, _) in enumerate(BLOCKS)])
def test_the_code_is_the_examples(source: str, code: str) -> None:
    assert code in (ROOT / source).read_text("utf-8")


@pytest.mark.parametrize("name", ["digits", "hf", "lightning", "accelerate", "lora", "stream"])
def test_the_integrations_are_spoken_of(name: str) -> None:
    assert f"examples/train_{name}.py" in {source for source, _ in BLOCKS}
