"""webdataset: tar archives in which consecutive members with one key are a record.

Spec: `specs/containers.md`, "webdataset". The key is the member's path up to the first dot of its last part; the rest,
in lower case, is the suffix, which says the field's name and how the member is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pot.canonical import parse
from pot.data.readers.npy import npy_array
from pot.data.readers.reader import ShardReader
from pot.data.readers.record import Record, check_size, json_value, record_cap
from pot.data.readers.source import Source
from pot.data.readers.tar import members
from pot.errors import LimitExceeded, Malformed

__all__ = ["WebdatasetReader"]

# the suffix that stands alone -> the field's name
NAMES: Final = {
    "txt": "text", "npy": "tokens", "bin": "bytes",
    "png": "image", "bmp": "image", "ppm": "image", "pgm": "image", "jpg": "image", "jpeg": "image", "webp": "image",
}  # fmt: skip

_Sample = dict[str, bytes]


@dataclass
class _Open:
    """A record whose members are still being read; `broken` says why it can be none."""

    where: str
    key: tuple[str, str]
    members: _Sample = field(default_factory=dict)
    size: int = 0
    broken: Malformed | None = None

    def add(self, suffix: str, content: bytes | int, where: str) -> None:
        self.size += content if isinstance(content, int) else len(content)
        if self.broken is None and suffix in self.members:
            self.broken = Malformed(f"{where}: the second with this suffix in its record")
        if self.broken is None:
            try:
                check_size(self.size, where)
            except LimitExceeded as error:
                self.broken = error
        if self.broken is not None:
            self.members = {}  # hold no more of it
        elif isinstance(content, bytes):
            self.members[suffix] = content


class WebdatasetReader(ShardReader):
    """Reads `.tar`."""

    suffixes = (".tar",)

    def _pieces(self, source: Source) -> Iterator[tuple[str, _Sample | Malformed]]:
        sample = _Open("", ("", ""))
        for name, content in members(source):
            where = f"{self.path} member {name!r}"
            folder, _, last = name.rpartition("/")
            stem, dot, suffix = last.partition(".")
            if not dot or not stem or not suffix:
                yield where, Malformed(f"{where}: has no suffix, so it is in no record")
                continue
            if sample.key != (folder, stem):
                if sample.where:
                    yield sample.where, sample.broken or sample.members
                sample = _Open(where, (folder, stem))
            sample.add(suffix.lower(), content, where)
        if sample.where:
            yield sample.where, sample.broken or sample.members

    def _record(self, where: str, piece: _Sample | Malformed) -> Record:
        if isinstance(piece, Malformed):
            raise piece
        if not self._wanted:
            return Record(where, b"", json_value(_whole(piece, where), where))
        return Record(where, b"", {name: _one(piece, name, stored, where) for name, stored in self._wanted.items()})


def _one(sample: _Sample, name: str, stored: str, where: str) -> Any:
    """Field `name` from the member of suffix `stored`, from the member that has that name, or from `.json`."""
    for suffix, content in sample.items():
        if suffix == stored and suffix != "json" and (name != stored or suffix not in NAMES):
            return _decode(_FORMS.get(name, suffix.rpartition(".")[2]), content, f"{where} (.{suffix})")
        if _field_name(suffix) == stored:
            return _decode(suffix.rpartition(".")[2], content, f"{where} (.{suffix})")
    if "json" in sample:
        value = _decode("json", sample["json"], f"{where} (.json)")
        if isinstance(value, dict) and stored in value:
            return value[stored]
    raise Malformed(f"{where}: no member and no JSON field {stored[:64]!r}, which is needed as the record's {name}")


def _whole(sample: _Sample, where: str) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for suffix, content in sample.items():
        decoded = _decode(suffix.rpartition(".")[2], content, f"{where} (.{suffix})")
        fields = decoded if suffix == "json" and isinstance(decoded, dict) else {_field_name(suffix): decoded}
        for name in fields:
            if name in value:
                raise Malformed(f"{where}: two members give the field {name[:64]!r}")
        value |= fields
    return value


def _field_name(suffix: str) -> str:
    """ "txt" is text, "content.txt" is content; what has no known form keeps its whole suffix."""
    head, dot, form = suffix.rpartition(".")
    if dot and form in _DECODERS:
        return head
    return NAMES.get(suffix, suffix)


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"{where}: not UTF-8 at byte {error.start}") from None


def _class(content: bytes, where: str) -> int:
    text = content[:32]
    if len(content) > 20 or not re.fullmatch(rb"-?(0|[1-9][0-9]*)\n?", text):
        raise Malformed(f"{where}: holds no decimal integer")
    return int(text)


def _plain(content: bytes, where: str) -> bytes:
    return content


def _json(content: bytes, where: str) -> Any:
    return parse(content, what=where, limit=record_cap())


def _array(content: bytes, where: str) -> Any:
    return npy_array(content, where)


_DECODERS: Final[dict[str, Callable[[bytes, str], Any]]] = {
    "txt": _text, "text": _text, "json": _json, "cls": _class, "npy": _array, "bin": _plain,
    **dict.fromkeys(("png", "bmp", "ppm", "pgm", "jpg", "jpeg", "webp"), _plain),
}  # fmt: skip
_FORMS: Final = {"text": "txt", "bytes": "bin", "image": "png", "tokens": "npy"}


def _decode(form: str, content: bytes, where: str) -> Any:
    return _DECODERS.get(form, _plain)(content, where)
