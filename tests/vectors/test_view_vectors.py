"""The views' vectors, for any implementation; and the examples in the views' specifications."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pot.commitments.spans import Spans
from pot.data.readers import Record
from pot.data.views import VIEWS, lanes, minhash, normalise, unicode32, winnow
from pot.errors import UsageError

SPECS = Path(__file__).resolve().parents[2] / "specs" / "views"


def vectors(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SPECS / "vectors" / f"{name.replace('/', '-')}.json").read_bytes())
    assert found["view"] == name
    return found


def value(stored: Any) -> Any:
    """What a vector says: `{"hex": ...}` is bytes."""
    if isinstance(stored, dict):
        if set(stored) == {"hex"}:
            return bytes.fromhex(stored["hex"])
        return {name: value(item) for name, item in stored.items()}
    return [value(item) for item in stored] if isinstance(stored, list) else stored


def record(stored: Any) -> Record:
    found = value(stored)
    return Record("vector", found, None) if isinstance(found, bytes) else Record("vector", b"", found)


def cases(kind: str, *, gram: bool) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}: {case['name']}")
        for name, view in VIEWS.items()
        if view.gram == gram
        for case in vectors(name).get(kind, [])
    ]


@pytest.fixture(params=["plain", "compiled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways through the code, whatever the sizes."""
    chosen = lanes if request.param == "compiled" else None
    for module in (winnow, minhash, normalise):
        monkeypatch.setattr(module, "kernel", lambda size: chosen)


def seen(name: str, records: list[Record]) -> Spans:
    view = VIEWS[name]
    return view.transform(Spans.of(view.content(record) for record in records))


def keys(name: str, records: list[Record], role: Any, key: bytes | None = None) -> list[list[str]]:
    counts, found = VIEWS[name].keys(seen(name, records), role, key)
    return [[f"{number:016x}" for number in part.tolist()] for part in np.split(found, np.cumsum(counts)[:-1])]


def test_every_view_has_a_specification_and_vectors() -> None:
    names = {name.replace("/", "-") for name in VIEWS}
    assert {path.stem for path in SPECS.glob("*.md")} == names
    assert {path.stem for path in (SPECS / "vectors").glob("*.json")} == names


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("name", "case"), cases("valid", gram=False))
def test_bytes(name: str, case: dict[str, Any]) -> None:
    (data,) = seen(name, [record(case["record"])])
    assert data.hex() == case["bytes"]


@pytest.mark.parametrize(("name", "case"), cases("invalid", gram=False))
def test_what_must_be_rejected(name: str, case: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="vector"):
        seen(name, [record(case["record"])])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("name", "case"), cases("valid", gram=True))
def test_keys(name: str, case: dict[str, Any]) -> None:
    key = None if case["key"] is None else bytes.fromhex(case["key"])
    assert keys(name, [record(item) for item in case["records"]], case["role"], key) == case["keys"]


def test_the_tables_of_text_norm() -> None:
    stored = vectors("text-norm/1")
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]

    def members(ranges: list[str]) -> set[int]:
        ends = [[int(end, 16) for end in text.split("-")] for text in ranges]
        return {code for first, last in ends for code in range(first, last + 1)}

    assigned = members(stored["assigned"])
    assert assigned == {code for code in codes if unicode32.unicode32.category(chr(code)) != "Cn"}
    step = unicode32.tables().first_step
    assert members(stored["removed"]) == {code for code, form in step.items() if form is None}
    assert members(stored["white_space"]) == {code for code, form in step.items() if form == " "}
    assert {code for code in assigned if unicode32.unicode32.category(chr(code)) == "Cf"} <= members(stored["removed"])
    lines = []
    for code in codes:
        form = unicode32._folded(chr(code), unicode32.tables().assigned_runs)
        if form != chr(code):
            lines.append(f"{code:X};{' '.join(f'{ord(part):X}' for part in form)}\n")
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert stored["folded"] == {"characters": len(lines), "sha256": digest}


def block(text: str, mark: str) -> list[str]:
    found = re.search(rf"<!-- {mark} -->\n```\w*\n(.*?)\n```", text, re.DOTALL)
    assert found, mark
    return found[1].split("\n")


@pytest.mark.parametrize("name", VIEWS)
def test_the_example_in_the_specification(name: str) -> None:
    view, text = VIEWS[name], (SPECS / f"{name.replace('/', '-')}.md").read_text("utf-8")
    assert f"**Shows:** {view.sentence}." in " ".join(text.split())
    if view.gram:
        records = [record(json.loads(line)) for line in block(text, "records")]
        found = keys(name, records, "training")
        assert [" ".join(some) or "-" for some in found] == block(text, "keys training")
    elif name == "file/1":
        assert "`00 72 61 77` gives these four bytes" in text
        assert list(seen(name, [Record("file", b"\x00raw", None)])) == [b"\x00raw"]
    else:
        (line,), (expected,) = block(text, "record"), block(text, "bytes")
        assert list(seen(name, [record(json.loads(line))])) == [bytes.fromhex(expected)]


def test_the_curve_in_the_specification_of_minhash() -> None:
    text = (SPECS / "minhash-1.md").read_text("utf-8")
    similarity, found = (
        re.search(rf"(?m)^\| {first} \| (.*) \|$", text)[1].split(" | ")  # type: ignore[index]
        for first in ("J", "found")
    )
    assert len(similarity) == 10
    for at, stated in zip(similarity, found, strict=True):
        real = 1 - (1 - float(at) ** minhash.ROWS) ** minhash.BANDS
        assert f"{real:.{len(stated) - 2}f}" == stated
