"""Renderings of the report: they show what it says, and carry nothing that lies to a reader."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from simulated_release import Simulation, written

from attest.export.page import render_page
from attest.export.text import render_text
from attest.verdict.report import Report
from pot.canonical import parse

EVIL = "\x1b[2J\u202e\u200b<script>alert(1)</script>{{7*7}}&\"'\x07"


class Reader(HTMLParser):
    """Collects text, tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.fixture(scope="module")
def report() -> Report:
    return Simulation().verify()


def test_text_and_page_show_verdict_claims_lineage_steps_and_what_is_not_shown(report: Report) -> None:
    text, page = render_text(report), read(render_page(report)).text
    for shown in (text, page):
        assert report.verdict in shown
        assert report.model.model_sha256 in shown
        for claim in report.claims:
            assert claim.type in shown
            for link in claim.links:
                assert link.code in shown
        for step in report.steps:
            assert step.title in shown
        for item in report.not_shown:
            assert item.sentence in shown
        for ancestor in report.lineage:
            assert ancestor.model_sha256[:16] in shown


def test_the_page_runs_nothing_and_asks_nobody(report: Report) -> None:
    reader = read(render_page(report))
    assert not {"script", "iframe", "img", "link", "object", "embed", "form", "base"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in ("src", "href", "action")]
    assert "default-src 'none'" in dict(reader.attributes)["content"] or any(
        value and "default-src 'none'" in value for _, value in reader.attributes
    )
    assert not re.search(r"https?://|url\(|@import", render_page(report).replace("https://pot-attest.dev", ""))


def evil_report() -> Report:
    """Untrusted text wherever a release bundle can put some."""
    simulation = Simulation()

    def names(files: dict[str, bytes]) -> None:
        files[EVIL] = b"x"

    def junk(lines: list[bytes]) -> list[bytes]:
        return [*lines, EVIL.encode()]

    return simulation.bend("files", names).bend("lines", junk).verify()


def test_untrusted_text_is_stripped_and_escaped_everywhere() -> None:
    report = evil_report()
    assert report.verdict == "DENY"
    text, page, json = render_text(report), render_page(report), report.to_bytes().decode()
    for shown in (text, page, json):
        assert "alert(1)" in shown  # it is there, harmless
        for character in "\x1b\u202e\u200b\x07":
            assert character not in shown
    assert "<script>" not in page
    assert "49" not in re.findall(r"\{\{.*?\}\}|49</code>", page)
    assert "script" not in read(page).tags


@pytest.mark.parametrize("verdict", ["PASS", "DENY", "INCOMPLETE"])
def test_every_verdict_renders(verdict: str, report: Report) -> None:
    other = report.model_copy(
        update={"verdict": verdict, "certificate": None, "policy": None, "lineage": [], "claims": []}
    )
    assert read(render_page(other)).tags.count("h1") == 1
    assert render_text(other).startswith(verdict)


def test_the_report_reads_back(report: Report) -> None:
    assert Report.from_bytes(report.to_bytes(), what="report") == report
    value: Any = parse(report.to_bytes(), what="report")
    assert value["verdict"] == "PASS"
    assert "null" not in report.to_bytes().decode().replace("nullable", "")


def test_library_command_and_page_give_the_same_report(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from attest.bundle import read_release
    from attest.cli.main import main
    from attest.verdict.verify import verify

    folder = written(Simulation(), tmp_path / "release")
    code = main(["verify", str(folder), "--json", "--report", str(tmp_path / "report.html")])
    printed = Report.from_bytes(capsys.readouterr().out.strip().encode(), what="output")
    ours = verify(read_release(folder), None)
    assert code == 3
    assert printed.model_copy(update={"time": None}) == ours.model_copy(update={"time": None})
    assert (tmp_path / "report.html").read_text() == render_page(printed)
