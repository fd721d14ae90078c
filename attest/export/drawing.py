"""Drawings for the page: a run's timeline, and the curve of a statistical test, as inline SVG without script.

Only whole numbers and decimals from the report enter the markup, never text: what is named stands beside the drawing.
Rows carry their meaning by place and pattern, not by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from markupsafe import Markup

from attest.verdict.report import ReportedHint, Timeline

__all__ = ["roc_svg", "timeline_svg"]

_WIDTH: Final = 1000
_ROW: Final = 26
_ROWS: Final = ("committed", "replayed", "proven")
_SIDE: Final = 160
_MAX_ENDS: Final = 200  # more borders than that would be a grey field


def timeline_svg(timeline: Timeline) -> Markup:
    """Three rows over the run's steps: committed with its segments and gaps, replayed, proven."""
    steps = int(timeline.steps)

    def x(step: int) -> str:
        return f"{step / steps * _WIDTH:.2f}"

    def bar(first: int, last: int, row: int, kind: str) -> str:
        width = max(1.0, (last - first + 1) / steps * _WIDTH)
        left = min(_WIDTH - width, (first - 1) / steps * _WIDTH)
        return f'<rect class="{kind}" x="{left:.2f}" y="{row * _ROW + 4}" width="{width:.2f}" height="{_ROW - 8}"/>'

    parts = [bar(1, steps, 0, "track committed")]
    parts += [bar(1, steps, row, "track") for row in (1, 2)]
    parts += [bar(int(span.first), int(span.last), 1, "replayed") for span in timeline.replayed]
    parts += [bar(int(span.first), int(span.last), 1, "mismatched") for span in timeline.mismatched]
    parts += [bar(int(span.first), int(span.last), 2, "proven") for span in timeline.proven]
    ends = [int(end) for end in timeline.ends[:-1]]
    if len(ends) <= _MAX_ENDS:
        parts += [f'<path class="border" d="M{x(end)} 4v{_ROW - 8}"/>' for end in ends]
    parts += [f'<path class="gap" d="M{x(int(step))} 2l6 10h-12z"/>' for step in timeline.gaps]
    return _svg(parts, _WIDTH, len(_ROWS) * _ROW, "timeline")


def roc_svg(hint: ReportedHint) -> Markup:
    """The receiver operating characteristic: parts of compared and of claimed records above each threshold."""
    pairs = sorted((min(1.0, max(0.0, float(a))), min(1.0, max(0.0, float(b)))) for a, b in hint.roc)
    line = " ".join(f"{a * _SIDE:.1f},{(1 - b) * _SIDE:.1f}" for a, b in [(0.0, 0.0), *pairs, (1.0, 1.0)])
    parts = [
        f'<rect class="track" x="0" y="0" width="{_SIDE}" height="{_SIDE}"/>',
        f'<path class="chance" d="M0 {_SIDE}L{_SIDE} 0"/>',
        f'<polyline class="curve" points="{line}"/>',
    ]
    return _svg(parts, _SIDE, _SIDE, "roc")


def _svg(parts: Iterable[str], width: int, height: int, kind: str) -> Markup:
    body = "".join(parts)
    return Markup(  # noqa: S704 - made of numbers only
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">{body}</svg>'
    )
