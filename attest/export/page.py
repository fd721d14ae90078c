"""The report as one HTML page: no script, no request to anywhere, readable in light and dark.

Every value goes through the template's escaping and has lost what could lie to its reader when it entered the report.
Decides nothing and adds nothing.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from attest.export.drawing import roc_svg, timeline_svg
from attest.plaintext import clean
from attest.verdict.report import Report

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["render_page"]

_WORDS = {"passed": "passed", "failed": "false", "not_checked": "not checked"}
_VERDICTS = {
    "PASS": "Everything that the policy requires is shown; nothing that the certificate refers to is missing or false.",
    "DENY": "Something that was checked is false.",
    "INCOMPLETE": "Something that is needed could not be checked or is missing.",
}


def render_page(report: Report) -> str:
    """The report as a complete HTML document."""
    names = {ancestor.certificate_sha256: ancestor.model for ancestor in report.lineage}
    return _template().render(report=report, names=names, words=_WORDS, meaning=_VERDICTS[report.verdict])


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    # autoescape for every template, whatever its name; no loader, so no template can reach a file
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["clean"] = lambda value: clean(str(value))
    environment.filters["timeline_svg"] = timeline_svg
    environment.filters["roc_svg"] = roc_svg
    return environment.from_string(files("attest.export").joinpath("page.html").read_text(encoding="utf-8"))
