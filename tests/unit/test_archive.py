"""Archives that mean harm: each is refused with its own sentence, and leaves nothing outside its folder."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pot.errors import LimitExceeded, Malformed, UsageError
from verifier_api import archive

LIMIT = 1 << 20


def tar(*members: tuple[str, bytes], form: int = tarfile.PAX_FORMAT, **fields: object) -> bytes:
    """A tar of regular files; `fields` bends the last member's header."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as writer:
        for number, (name, data) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if number == len(members) - 1:
                for key, value in fields.items():
                    setattr(info, key, value)
            writer.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpack(data: bytes, tmp_path: Path, *, compressed: bool = False, limit: int = LIMIT) -> Path:
    upload = tmp_path / "upload"
    upload.write_bytes(data)
    into = tmp_path / "inside"
    into.mkdir()
    return archive.unpack(upload, into, compressed=compressed, limit=limit)


def refix(block: bytearray, start: int) -> None:
    """Write the right checksum into a header that was bent."""
    block[start + 148 : start + 156] = b" " * 8
    block[start + 148 : start + 156] = b"%06o\0 " % sum(block[start : start + 512])


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compressed", [False, True])
def test_files_come_out_as_they_went_in(tmp_path: Path, form: int, compressed: bool) -> None:
    long_name = "release/" + "d" * 60 + "/" + "f" * 90
    data = tar(("release/a", b"x" * 1000), (long_name, b""), ("release/.pot/objects/b", b"\0" * 512), form=form)
    root = unpack(gzip.compress(data) if compressed else data, tmp_path, compressed=compressed)
    assert root.name == "release"
    assert (root / "a").read_bytes() == b"x" * 1000
    assert (root / ".pot/objects/b").read_bytes() == b"\0" * 512
    assert (root.parent / long_name).read_bytes() == b""


def test_files_at_the_root_are_the_release_bundle(tmp_path: Path) -> None:
    root = unpack(tar(("./claims.jsonl", b"{}"), ("./.pot/objects/x", b"")), tmp_path)
    assert root == tmp_path / "inside"
    assert (root / "claims.jsonl").read_bytes() == b"{}"


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "a//x", "a/./x", "a\\x", "a\x1bx", "a\x7fx", "..", "."],
)
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Malformed):
        unpack(tar((name, b"1"), form=tarfile.USTAR_FORMAT), tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"upload"}
    assert not Path("/etc/x").exists()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "named pipe"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (tarfile.CONTTYPE, "of a kind"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, kind: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        unpack(tar(("release/x", b""), form=tarfile.GNU_FORMAT, type=kind, linkname="/etc/passwd"), tmp_path)


def test_a_file_behind_a_link_is_never_written(tmp_path: Path) -> None:
    data = tar(("x", b""), type=tarfile.SYMTYPE, linkname=str(tmp_path))[:512] + tar(("x/owned", b"1"))
    with pytest.raises(Malformed, match="symbolic link"):
        unpack(data, tmp_path)
    assert not (tmp_path / "owned").exists()


def test_the_same_path_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="twice"):
        unpack(tar(("a/x", b"1"), ("a/x", b"2")), tmp_path)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(Malformed, match="as a file and as a folder"):
        unpack(tar(*((name, b"1") for name in names)), tmp_path)


def test_too_many_bytes_are_refused_before_they_are_written(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="limit of 1000"):
        unpack(tar(("a", b"x" * 600), ("b", b"x" * 600)), tmp_path, limit=1000)
    assert not (tmp_path / "inside/b").exists()


def test_a_stated_size_beyond_the_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded):
        unpack(tar(("a", b""), pax_headers={"size": str(1 << 50)}), tmp_path)


def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    engine = zlib.compressobj(9, wbits=31)
    bomb = b"".join(engine.compress(b"\0" * (1 << 20)) for _ in range(256)) + engine.flush()
    assert len(bomb) < 1 << 20
    with pytest.raises(LimitExceeded):
        unpack(bomb, tmp_path, compressed=True)


def test_a_bomb_inside_a_file_stops_at_the_limit(tmp_path: Path) -> None:
    bomb = gzip.compress(tar(("release/model.safetensors", b"\0" * (8 << 20))))
    with pytest.raises(LimitExceeded):
        unpack(bomb, tmp_path, compressed=True)
    assert list((tmp_path / "inside").iterdir()) == []


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    assert unpack(tar(*((f"a/{n}", b"") for n in range(3))), tmp_path).name == "a"
    (tmp_path / "more").mkdir()
    with pytest.raises(LimitExceeded, match="more than 3 members"):
        unpack(tar(*((f"a/{n}", b"") for n in range(4))), tmp_path / "more")


def test_a_path_over_the_cap_is_refused(tmp_path: Path) -> None:
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(LimitExceeded):
            unpack(tar(("/".join(["d" * 100] * 6), b""), form=form), tmp_path / str(number))
    (tmp_path / "name").mkdir()
    with pytest.raises(LimitExceeded, match="255"):
        unpack(tar(("d" * 300, b"")), tmp_path / "name")


def test_a_huge_extended_header_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="extended header"):
        unpack(tar(("a", b""), pax_headers={"comment": "x" * (archive.MAX_EXTENDED_HEADER + 1)}), tmp_path)


def test_a_global_path_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "../x"}) as writer:
        writer.addfile(tarfile.TarInfo("a"), io.BytesIO(b""))
    with pytest.raises(Malformed, match="all its members"):
        unpack(out.getvalue(), tmp_path)


def test_a_path_given_twice_in_one_header_is_refused(tmp_path: Path) -> None:
    data = bytearray(tar(("a", b""), pax_headers={"path": "b"}))
    assert data[512:521] == b"9 path=b\n"
    data[521:530] = b"9 path=c\n"
    data[124:136] = b"%011o\0" % 18
    refix(data, 0)
    with pytest.raises(Malformed, match="path twice"):
        unpack(bytes(data), tmp_path)


def truncated(data: bytes) -> bytes:
    return data[:600]


def without_end(data: bytes) -> bytes:
    return data[:1024]


def one_zero_block(data: bytes) -> bytes:
    return data[:1536]


def trailing(data: bytes) -> bytes:
    return data + b"more"


def bent_checksum(data: bytes) -> bytes:
    return b"b" + data[1:]


def dirty_padding(data: bytes) -> bytes:
    return data[:1000] + b"!" + data[1001:]


def binary_size(data: bytes) -> bytes:
    bent = bytearray(data)
    bent[124:136] = b"\x80" + b"\0" * 10 + b"\x01"
    refix(bent, 0)
    return bytes(bent)


def no_magic(data: bytes) -> bytes:
    bent = bytearray(data)
    bent[257:265] = b"\0" * 8
    refix(bent, 0)
    return bytes(bent)


def junk(data: bytes) -> bytes:
    return bytes(range(256)) * 8


def nothing(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "bend",
    [
        truncated,
        without_end,
        one_zero_block,
        trailing,
        bent_checksum,
        dirty_padding,
        binary_size,
        no_magic,
        junk,
        nothing,
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_malformed(tmp_path: Path, bend: Callable[[bytes], bytes], compressed: bool) -> None:
    data = bend(tar(("a", b"abc"), form=tarfile.USTAR_FORMAT))
    with pytest.raises(Malformed):
        unpack(gzip.compress(data) if compressed else data, tmp_path, compressed=compressed)


@pytest.mark.parametrize(
    "bend", [lambda d: d[:-9], lambda d: d + b"x", lambda d: d + d, lambda d: b"x" + d, lambda d: b""]
)
def test_damaged_gzip_is_malformed(tmp_path: Path, bend: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Malformed, match="gzip"):
        unpack(bend(gzip.compress(tar(("a", b"abc")))), tmp_path, compressed=True)


def test_any_single_flipped_byte_of_a_header_is_survived(tmp_path: Path) -> None:
    """Never another error than ours, whatever byte is bent with the checksum made right again."""
    honest = tar(("release/a", b"abc"), pax_headers={"path": "release/" + "b" * 20})
    for position in [*range(0, 512, 3), *range(512, 560)]:
        bent = bytearray(honest)
        bent[position] ^= 0x15
        if position < 512 and not 148 <= position < 156:
            refix(bent, 0)
        folder = tmp_path / str(position)
        folder.mkdir()
        try:
            root = unpack(bytes(bent), folder)
        except UsageError:
            continue
        assert root.is_relative_to(folder)
