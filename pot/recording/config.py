"""A run's configuration: as JSON, as the digest that enters every state, and where two of them differ.

Spec: `specs/transcript.md`, "Pre-commitment".

Shows: nothing by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from pot.commitments.state import json_digest
from pot.errors import UsageError

__all__ = ["config_digest", "first_difference", "plain_config"]


def config_digest(config: Mapping[str, Any]) -> str:
    """The configuration's digest, as it enters every state digest."""
    return json_digest("config", dict(config))


def plain_config(config: Mapping[str, Any] | None) -> dict[str, JsonValue]:
    """The configuration as JSON: reals become strings (`repr`), absent values are left out. Raises `UsageError`."""
    return {} if config is None else _plain_mapping(config, "config")


def _plain(value: Any, where: str) -> JsonValue:
    if value is True or value is False or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= 2**53 else str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, where)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise UsageError(
        f"{where}: a {type(value).__name__} has no JSON form; give numbers, strings, lists and dictionaries"
    )


def _plain_mapping(value: Mapping[Any, Any], where: str) -> dict[str, JsonValue]:
    for key in value:
        if not isinstance(key, str):
            raise UsageError(f"{where}: the key {key!r} is not a string")
    return {key: _plain(item, f"{where}.{key}") for key, item in value.items() if item is not None}


def first_difference(ours: Any, theirs: Any, where: str = "") -> str | None:
    """The first place where two JSON values differ, as "path: first value, second value"; None where they are equal."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            found = first_difference(ours.get(key), theirs.get(key), f"{where}.{key}" if where else key)
            if found is not None:
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            found = first_difference(one, other, f"{where}[{index}]")
            if found is not None:
                return found
        return None
    return None if ours == theirs else f"{where or 'document'}: {_short(ours)}, now {_short(theirs)}"


def _short(value: Any) -> str:
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
