"""Views of one record, to the byte; and what they refuse."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest

from attest.verdict.sentences import EXCLUSIONS
from pot.commitments.dataset import GRAM_VIEWS
from pot.commitments.dataset import NEEDS as NEEDS_OF
from pot.commitments.spans import Spans
from pot.data.readers import Record
from pot.data.readers.record import NEEDS
from pot.data.views import VIEWS, view_named
from pot.data.views import pixels as pixels_module
from pot.errors import LimitExceeded, Malformed, MissingExtra, UsageError


def record(value: dict[str, Any] | None, data: bytes = b"") -> Record:
    return Record("shard line 1", data, value)


def pixels(image: Any) -> bytes:
    return VIEWS["pixels/1"].content(record({"image": image, "label": 3}))


def tokens(value: Any) -> bytes:
    return VIEWS["tokens/1"].content(record({"tokens": value}))


def encoded(array: Any, kind: str = "PNG", mode: str | None = None, **more: Any) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.asarray(array, np.uint8))
    out = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(out, kind, **more)
    return out.getvalue()


def png(depth: int, colour: int, width: int, height: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG file of these filtered rows, written after its specification."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)),
                     chunk(b"IEND", b"")])  # fmt: skip


def test_pixels_are_height_width_channels_then_rows() -> None:
    header = b"\2\0\0\0\3\0\0\0\1\0\0\0"
    assert pixels([[0, 1, 2], [3, 4, 255]]) == header + bytes([0, 1, 2, 3, 4, 255])
    assert pixels([[[0], [1], [2]], [[3], [4], [255]]]) == header + bytes([0, 1, 2, 3, 4, 255])
    assert pixels([[[1, 2, 3]]]) == b"\1\0\0\0\1\0\0\0\3\0\0\0\1\2\3"


def test_the_shape_is_bound() -> None:
    assert len({pixels([[1, 2, 3, 4]]), pixels([[1, 2], [3, 4]]), pixels([[1], [2], [3], [4]])}) == 3


def test_the_label_is_not_part_of_the_pixels() -> None:
    content = VIEWS["pixels/1"].content
    assert content(record({"image": [[1]], "label": 1})) == content(record({"image": [[1]]}))


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 1), (3, 2, 3), (3, 2, 4), (1, 1, 7)])
def test_lists_arrays_and_files_give_the_same_bytes(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    expected = pixels(array.tolist())
    assert pixels(array) == pixels(array.astype(np.int64)) == pixels(np.asfortranarray(array)) == expected
    if len(shape) == 2 or shape[2] in (3, 4):
        assert pixels(encoded(array)) == expected
    if len(shape) == 2 or shape[2] == 3:
        assert pixels(encoded(array, "BMP")) == pixels(encoded(array, "PPM")) == expected


def test_transparency_outside_the_values_does_not_count() -> None:
    chunk = struct.pack(">I", 2) + b"tRNS\0\7" + struct.pack(">I", zlib.crc32(b"tRNS\0\7"))
    assert pixels(png(8, 0, 2, 1, b"\0\x07\x09", chunk)) == pixels([[7, 9]])


def test_few_bits_of_gray_are_scaled_as_png_says() -> None:
    assert pixels(png(1, 0, 8, 1, b"\0\xa5")) == pixels([[255, 0, 255, 0, 0, 255, 0, 255]])
    assert pixels(png(2, 0, 4, 1, b"\0\x1b")) == pixels([[0, 85, 170, 255]])
    assert pixels(png(4, 0, 2, 1, b"\0\x1f")) == pixels([[17, 255]])
    assert pixels(png(8, 4, 1, 1, b"\0\x07\x09")) == pixels([[[7, 9]]])


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
        np.zeros((2, 2)),
        np.zeros((2, 2), bool),
        np.zeros((2,), np.uint8),
        np.zeros((1, 1, 1, 1), np.uint8),
        np.zeros((0, 2), np.uint8),
        np.zeros((2, 2, 0), np.uint8),
        np.full((1, 1), 256, np.int64),
        np.full((1, 1), -1, np.int64),
    ],
)
def test_what_is_not_an_image_is_refused(image: Any) -> None:
    with pytest.raises(Malformed, match="shard line 1"):
        pixels(image)


def refused() -> dict[str, tuple[bytes, str]]:
    rgb = np.random.default_rng(2).integers(0, 256, (8, 8, 3), np.uint8)
    good = encoded(rgb)
    flipped = bytearray(good)
    flipped[-20] ^= 1
    frames = [__import__("PIL.Image").Image.fromarray(rgb) for _ in "12"]
    frames[1].putpixel((0, 0), (1, 2, 3))
    animation = io.BytesIO()
    frames[0].save(animation, "PNG", save_all=True, append_images=frames[1:])
    bmp = encoded(rgb, "BMP")
    return {
        "empty": (b"", "no PNG, BMP or PPM"),
        "text": (b"hello", "no PNG, BMP or PPM"),
        "JPEG": (encoded(rgb, "JPEG"), "a JPEG image"),
        "WebP": (encoded(rgb, "WEBP"), "a WebP image"),
        "GIF": (encoded(rgb, "GIF"), "a GIF image"),
        "TIFF": (encoded(rgb, "TIFF"), "a TIFF image"),
        "palette": (encoded(rgb, "PNG", "P"), "mode P"),
        "frames": (animation.getvalue(), "several frames"),
        "16 bits": (png(16, 0, 1, 1, b"\0\1\2"), "not 8 bits"),
        "16 bits of RGB": (png(16, 2, 1, 1, b"\0\1\2\3\4\5\6"), "not 8 bits"),
        "5 bits": (bmp[:28] + b"\x10\0" + bmp[30:], "not 8 bits"),
        "BMP with alpha, or not": (encoded(np.zeros((2, 2, 4)), "BMP"), "not 8 bits"),
        "old BMP": (bmp[:14] + b"\x0c\0\0\0" + bmp[18:], "not 8 bits"),
        "deep PPM": (b"P6 1 1 65535\n" + bytes(6), "not 8 bits"),
        "other PPM": (b"P5 1 1 100\n" + bytes(1), "not 8 bits"),
        "PPM of two readings": (b"P5 1 1 #\r100 \n255\n\0", "not 8 bits"),
        "long PPM": (b"P5" + b" " * 100_000 + b"1 1 255\n\0", "not 8 bits"),
        "cut PPM": (b"P6 10 10 255\n" + bytes(9), "cannot be decoded"),
        "cut": (good[:-30], "cannot be decoded"),
        "header alone": (good[:33], "cannot be decoded"),
        "magic alone": (good[:8], "not 8 bits"),
        "flipped": (bytes(flipped), "cannot be decoded"),
        "huge": (png(8, 2, 2**31 - 1, 2**31 - 1, b""), "cannot be decoded|limit"),
    }


@pytest.mark.parametrize("name", refused())
def test_encoded_images_that_are_refused(name: str) -> None:
    data, sentence = refused()[name]
    with pytest.raises(Malformed, match=sentence) as caught:
        pixels(data)
    assert str(caught.value).startswith("shard line 1: ")


def test_a_small_file_of_a_large_image_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    image = encoded(np.zeros((100, 100, 3)))
    monkeypatch.setattr(pixels_module, "MAX_VALUES", 29_999)
    with pytest.raises(LimitExceeded, match="limit of 29999 values"):
        pixels(image)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    image = encoded(np.zeros((1, 1)))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"pot-attest\[data\]"):
        pixels(image)


def test_a_record_without_image_is_refused() -> None:
    with pytest.raises(Malformed, match="needs a field 'image'"):
        VIEWS["pixels/1"].content(record({"picture": [[1]]}))


def test_text_is_utf8_unchanged() -> None:
    content = VIEWS["text/1"].content
    assert content(record({"text": "\ufeffe\u0301\r\n", "more": 1})) == b"\xef\xbb\xbfe\xcc\x81\r\n"
    assert content(record(None, b"\xef\xbb\xbfa\0")) == b"\xef\xbb\xbfa\0"
    assert content(record({"text": ""})) == b""
    assert list(VIEWS["text/1"].transform(Spans.of([b" A "]))) == [b" A "]


@pytest.mark.parametrize(
    "value", [{}, {"text": None}, {"text": 3}, {"text": b"x"}, {"text": ["x"]}, {"text": "\ud800"}]
)
@pytest.mark.parametrize("view", ["text/1", "text-norm/1", "tiles50/1", "winnow50/1", "minhash/1"])
def test_what_is_no_text_is_refused(value: dict[str, Any], view: str) -> None:
    with pytest.raises(Malformed, match="shard line 1"):
        VIEWS[view].content(record(value))


def test_a_plain_file_that_is_no_text_is_refused() -> None:
    with pytest.raises(Malformed, match="not UTF-8 at byte 1"):
        VIEWS["text/1"].content(record(None, b"a\xff"))


def test_tokens_are_u32_little_endian() -> None:
    expected = b"\1\0\0\0\0\0\0\0\xff\xff\xff\xff"
    assert tokens([1, 0, 2**32 - 1]) == expected
    for kind in (np.uint32, np.int64, np.uint64, ">u4", ">i8"):
        assert tokens(np.array([1, 0, 2**32 - 1], kind)) == expected
    assert tokens(np.array([1, 2], np.int16)) == tokens([1, 2])
    assert tokens([]) == tokens(np.array([], np.int64)) == b""


@pytest.mark.parametrize(
    "value",
    [None, "1", 1, {}, [True], [1.0], ["1"], [None], [[1]], [-1], [2**32], [10**30], np.zeros(2), np.zeros((1, 1), int),
     np.array([True]), np.array([-1]), np.array([2**32]), np.array(1), np.array([2**64 - 1], np.uint64)],
)  # fmt: skip
def test_what_are_no_tokens_is_refused(value: Any) -> None:
    with pytest.raises(Malformed, match=r"shard line 1: .*tokens"):
        tokens(value)


def test_json_is_canonical() -> None:
    content = VIEWS["json/1"].content
    assert content(record({"b": 1.0, "a": "é"})) == '{"a":"é","b":1}'.encode()
    assert content(record({"a": np.array([[1, 2]]), "b": {"c": [np.array([3], np.uint8)]}})) == (
        b'{"a":[[1,2]],"b":{"c":[[3]]}}'
    )


@pytest.mark.parametrize(
    "value", [b"x", [b"x"], {"y": b"x"}, np.zeros(1), [np.array([True])], float("nan"), 2**60, "\ud800"]
)
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(Malformed, match="shard line 1: "):
        VIEWS["json/1"].content(record({"field": value}))


def test_bytes_in_json_are_refused_by_name() -> None:
    with pytest.raises(Malformed, match="field 'photo' holds bytes"):
        VIEWS["json/1"].content(record({"photo": {"bytes": b"x"}}))


def test_file_is_the_bytes() -> None:
    assert VIEWS["file/1"].content(record(None, b"\x00raw\r\n")) == b"\x00raw\r\n"
    assert VIEWS["file/1"].content(record({"bytes": b"\x00", "name": "x"}, b"line")) == b"\x00"
    with pytest.raises(Malformed, match="plain file, or a field 'bytes'"):
        VIEWS["file/1"].content(record({"bytes": "x"}))


@pytest.mark.parametrize("name", ["pixels/1", "json/1", "tokens/1", "winnow50-tokens/1"])
def test_plain_files_have_no_object_view(name: str) -> None:
    with pytest.raises(UsageError, match="plain file"):
        VIEWS[name].content(record(None, b"x"))


@pytest.mark.parametrize("name", ["", "pixels/2", "PIXELS/1", "../x", "x" * 1000])
def test_unknown_views_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="known views are file/1, json/1, minhash/1, pixels/1, text-norm/1"):
        view_named(name)


def test_every_view_says_what_it_is() -> None:
    assert {view.name for view in VIEWS.values() if view.gram} == GRAM_VIEWS
    assert {name: view.needs for name, view in VIEWS.items()} == NEEDS_OF  # what verifiers know without the views
    assert [view.name for view in VIEWS.values() if view.packed] == ["winnow50-tokens/1"]
    for name, view in VIEWS.items():
        assert view_named(name) is view
        assert view.name == name
        assert view.needs in NEEDS


def test_claims_use_the_sentences_of_the_views() -> None:
    assert {name: view.sentence for name, view in VIEWS.items()} == EXCLUSIONS


@pytest.mark.parametrize("name", sorted(set(VIEWS) - GRAM_VIEWS))
def test_plain_views_have_no_keys_of_pieces(name: str) -> None:
    with pytest.raises(UsageError, match="no keys of pieces"):
        VIEWS[name].keys(Spans.of([b"x"]), "training")


def test_views_load_nothing_heavy() -> None:
    script = "import pot.data.views, sys; print([n for n in ('numba', 'PIL', 'pyarrow', 'nacl') if n in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.strip() == "[]"
