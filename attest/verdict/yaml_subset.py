"""Reading policies: YAML 1.2 with the JSON schema, and nothing that surprises.

Spec: `specs/verification.md`, "Policy file"; YAML 1.2.2 10.2. One document; no anchors, aliases, tags, directives,
merge keys or duplicate keys; plain scalars that JSON does not know are strings (`no` is "no", a date is a string).
The events come from ruamel.yaml; values are made here, so no tag can name a type and no alias can grow.

Does not define: the fields of a policy (`attest.verdict.policy`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pot.canonical import MAX_INTEGER
from pot.errors import LimitExceeded, Malformed

__all__ = ["MAX_YAML_BYTES", "parse_yaml"]

MAX_YAML_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 16
_MAX_NODES: Final = 100_000
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_WORDS: Final[dict[str, Any]] = {"null": None, "true": True, "false": False, "": None, "~": None}


def parse_yaml(data: bytes, *, what: str) -> Any:
    """Parse one YAML document. Reals stay strings, so that none is rounded. Raises `Malformed`, `LimitExceeded`."""
    if len(data) > MAX_YAML_BYTES:
        raise LimitExceeded(f"{what}: {len(data)} bytes, more than the limit of {MAX_YAML_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"{what}: not UTF-8 at byte {error.start}") from None
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    try:
        return _Builder(iter(reader.parse(text)), what).document()
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1} column {mark.column + 1}" if mark is not None else ""
        raise Malformed(f"{what}: not YAML{at}: {getattr(error, 'problem', None) or 'unreadable'}") from None
    except (ValueError, AttributeError, IndexError, RecursionError, AssertionError, KeyError, TypeError):
        # what a parser for hostile text may still let through must not leave as a crash
        raise Malformed(f"{what}: not YAML") from None


class _Builder:
    """Makes a value from a stream of parse events."""

    def __init__(self, events: Iterator[Any], what: str) -> None:
        self._events, self._what, self._nodes = events, what, 0

    def document(self) -> Any:
        """The value of the only document."""
        self._expect("StreamStartEvent")
        start = self._expect("DocumentStartEvent")
        if start.version is not None or start.tags:
            self._refuse(start, "a directive (%) is not allowed")
        value = self._node(next(self._events), 0)
        self._expect("DocumentEndEvent")
        self._expect("StreamEndEvent")
        return value

    def _expect(self, kind: str) -> Any:
        event = next(self._events, None)
        if type(event).__name__ != kind:
            self._refuse(event, "exactly one document is expected")
        return event

    def _refuse(self, event: Any, reason: str) -> None:
        mark = getattr(event, "start_mark", None)
        at = f" at line {mark.line + 1} column {mark.column + 1}" if mark is not None else ""
        raise Malformed(f"{self._what}: {reason}{at}")

    def _node(self, event: Any, depth: int) -> Any:
        self._nodes += 1
        if depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise LimitExceeded(f"{self._what}: nested deeper than {_MAX_DEPTH} or more than {_MAX_NODES} values")
        kind = type(event).__name__
        if kind == "AliasEvent" or getattr(event, "anchor", None) is not None:
            self._refuse(event, "anchors and aliases are not allowed")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, "tags are not allowed")
        if kind == "ScalarEvent":
            return self._scalar(event)
        if kind == "SequenceStartEvent":
            return list(self._items(depth, "SequenceEndEvent"))
        if kind == "MappingStartEvent":
            return self._mapping(depth)
        return self._refuse(event, "exactly one document is expected")

    def _items(self, depth: int, end: str) -> Iterator[Any]:
        while type(event := next(self._events)).__name__ != end:
            yield self._node(event, depth + 1)

    def _mapping(self, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while type(event := next(self._events)).__name__ != "MappingEndEvent":
            key = self._node(event, depth + 1)
            if type(event).__name__ != "ScalarEvent" or not isinstance(key, str):
                self._refuse(event, "a key must be a string")
            if key in result:
                self._refuse(event, f"duplicate key {key[:64]!r}")
            if key == "<<":
                self._refuse(event, "merge keys are not allowed")
            result[key] = self._node(next(self._events), depth + 1)
        return result

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._refuse(event, "lone surrogate in a string")
        if not event.implicit[0]:  # quoted or block scalar
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
                self._refuse(event, "integer beyond 2^53; write it as a string")
            return int(text)
        return text  # reals too: a policy's decimals are exact
