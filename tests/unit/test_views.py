"""Views, to the byte; and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from pot.data.readers import Record
from pot.data.views import VIEWS, view_named
from pot.errors import Malformed, UsageError


def record(value: dict[str, Any] | None, data: bytes = b"") -> Record:
    return Record("shard line 1", data, value)


def pixels(image: Any) -> bytes:
    return VIEWS["pixels/1"].project(record({"image": image, "label": 3}))


def test_pixels_are_height_width_channels_then_rows() -> None:
    header = b"\2\0\0\0\3\0\0\0\1\0\0\0"
    assert pixels([[0, 1, 2], [3, 4, 255]]) == header + bytes([0, 1, 2, 3, 4, 255])
    assert pixels([[[0], [1], [2]], [[3], [4], [255]]]) == header + bytes([0, 1, 2, 3, 4, 255])
    assert pixels([[[1, 2, 3]]]) == b"\1\0\0\0\1\0\0\0\3\0\0\0\1\2\3"


def test_the_shape_is_bound() -> None:
    assert len({pixels([[1, 2, 3, 4]]), pixels([[1, 2], [3, 4]]), pixels([[1], [2], [3], [4]])}) == 3


def test_the_label_is_not_part_of_the_pixels() -> None:
    project = VIEWS["pixels/1"].project
    assert project(record({"image": [[1]], "label": 1})) == project(record({"image": [[1]]}))


@pytest.mark.parametrize(
    "image",
    [
        None,
        [],
        [[]],
        [1],
        "x",
        [[1], [2, 3]],
        [[1, 2], 3],
        [[256]],
        [[-1]],
        [[1.0]],
        [[True]],
        [["1"]],
        [[None]],
        [[[]]],
        [[[1], [2, 3]]],
        [[[1], 2]],
        [[1, [2]]],
        [[[256]]],
        [[10**30]],
    ],
)
def test_what_is_not_an_image_is_refused(image: Any) -> None:
    with pytest.raises(Malformed, match="shard line 1"):
        pixels(image)


def test_a_record_without_image_is_refused() -> None:
    with pytest.raises(Malformed, match="needs a field 'image'"):
        VIEWS["pixels/1"].project(record({"picture": [[1]]}))


def test_json_is_canonical() -> None:
    assert VIEWS["json/1"].project(record({"b": 1.0, "a": "é"})) == '{"a":"é","b":1}'.encode()


def test_file_is_the_bytes() -> None:
    assert VIEWS["file/1"].project(record(None, b"\x00raw\r\n")) == b"\x00raw\r\n"


@pytest.mark.parametrize("name", ["pixels/1", "json/1"])
def test_plain_files_have_no_object_view(name: str) -> None:
    with pytest.raises(UsageError, match="plain file"):
        VIEWS[name].project(record(None, b"x"))


@pytest.mark.parametrize("name", ["", "pixels/2", "PIXELS/1", "../x", "x" * 1000])
def test_unknown_views_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="known views are file/1, json/1, pixels/1"):
        view_named(name)
