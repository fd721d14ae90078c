"""pot zk: kits and reference strings, what the commands refuse and what they say; ezkl only where keys are made."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pointed_run import StandIn, small_program, stand_in_kit

from attest.cli.main import main
from attest.cli.zk_folder import finished_as
from pot.canonical import sha256_hex
from pot.errors import Refused, UsageError
from pot.zk.kit import open_kit
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.program import Program
from pot.zk.srs import PUBLIC_CEREMONY


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.json"
    path.write_bytes(small_program().to_bytes())
    return path


def written_srs(path: Path, logrows: int) -> Path:
    """A file of the right length, with nothing in it."""
    path.write_bytes(logrows.to_bytes(4, "little") + bytes((128 << logrows) + 256))
    return path


def setup(out: Path, *words: object) -> int:
    return main(["zk", "setup", "--out", str(out), *map(str, words)])


def test_setup_refuses_before_it_makes_anything(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begun(*_: object) -> bytes:
        raise AssertionError("the work began")

    monkeypatch.setattr("pot.zk.engine.EzklEngine.make_srs", begun)
    monkeypatch.setattr("pot.zk.engine.EzklEngine.setup", begun)
    assert setup(tmp_path) == 2
    assert "exists already" in capsys.readouterr().err
    out = tmp_path / "kit"
    for shift in ("-1", "17", "x"):
        assert setup(out, "--rate-shift", shift) == 2
    for words in (("--logrows", 8), ("--logrows", 21), ("--columns", 0), ("--columns", 17)):
        assert setup(out, "--program", program, *words) == 2
    assert setup(out, "--program", program, "--rate-shift", 3) == 2
    assert "one of them" in capsys.readouterr().err
    assert setup(out, "--program", tmp_path / "none") == 2
    (tmp_path / "other.json").write_bytes(b'{"version":"pot/circuit/v2"}')
    assert setup(out, "--program", tmp_path / "other.json") == 2
    assert setup(out, "--srs", tmp_path / "none") == 2
    (tmp_path / "short").write_bytes(b"short")
    assert setup(out, "--srs", tmp_path / "short") == 2
    srs = written_srs(tmp_path / "srs", 10)
    assert setup(out, "--program", program, "--srs", srs, "--logrows", 9) == 2
    assert "made for 2^10 rows, --logrows asks for 2^9" in capsys.readouterr().err
    assert setup(out, "--srs", srs) == 2  # the digits' table alone needs more rows
    assert "2^10 rows" in capsys.readouterr().err
    assert main(["zk", "setup"]) == 2
    assert not out.exists()


def test_a_setup_that_fails_leaves_nothing(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pot.zk.engine import EngineFailure

    def fails(*_: object) -> Any:
        raise EngineFailure("settings", "out of memory")

    monkeypatch.setattr("pot.zk.engine.EzklEngine.settings", fails)
    out = tmp_path / "kit"
    assert setup(out, "--program", program, "--srs", written_srs(tmp_path / "srs", 9)) == 4
    told = capsys.readouterr().err
    assert "1 part of 2^9 rows" in told
    assert "CPU-seconds" in told
    assert not out.exists()


def test_a_kit_gets_its_name_when_it_is_whole(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Built beside its place; what a killed setup left there is gone, and a stopped one leaves nothing."""
    seen: list[list[str]] = []
    place = tempfile.gettempdir()
    out, part, srs = tmp_path / "kit", tmp_path / ".kit.part", written_srs(tmp_path / "srs", 9)

    def build(step: Program, reference: bytes, folder: Path, *_: object, **__: object) -> Any:
        seen.append(sorted(path.name for path in folder.iterdir()))
        assert (folder, out.exists(), tempfile.gettempdir()) == (part, False, str(part / "work"))
        (folder / "srs").write_bytes(b"half")
        if len(seen) == 1:
            raise KeyboardInterrupt
        (folder / "srs").unlink()
        return stand_in_kit(folder, small_program())

    monkeypatch.setattr("pot.zk.kit.build_kit", build)
    (part / "part-0").mkdir(parents=True)
    (part / "srs").write_bytes(b"of a setup that was killed")
    assert setup(out, "--program", program, "--srs", srs) == 130
    assert f"nothing of {out} is kept" in capsys.readouterr().err
    assert (part.exists(), tempfile.gettempdir()) == (False, place)
    assert setup(out, "--program", program, "--srs", srs) == 0
    assert seen == [["work"], ["work"]]
    assert not part.exists()
    assert open_kit(out).files == [
        out / name for name in ("program.json", "circuit.json", "srs", "part-0/settings.json", "part-0/vk")
    ]
    assert setup(out, "--program", program, "--srs", srs) == 2
    assert "exists already" in capsys.readouterr().err


def test_two_setups_of_one_kit_do_not_meet(tmp_path: Path) -> None:
    with finished_as(tmp_path / "kit") as part:
        (part / "srs").write_bytes(b"one")
        with pytest.raises(Refused, match="another pot zk setup is making it"), finished_as(tmp_path / "kit"):
            pass
        assert (part / "srs").read_bytes() == b"one"
    assert (tmp_path / "kit" / "srs").read_bytes() == b"one"
    with pytest.raises(UsageError, match="holds no finished circuit"), finished_as(tmp_path / "kit"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kit"]


def test_half_a_kit_is_named_as_such(tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = tmp_path / "half"
    stand_in_kit(half, small_program())
    (half / "circuit.json").unlink()
    for words in (["zk", "setup", "--program", str(program), "--out", str(half)], ["zk", "show", str(half)]):
        assert main(words) == 2
        assert f"{half}: holds no finished circuit" in capsys.readouterr().err
    assert (half / "srs").exists()


def test_a_secret_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.key", tmp_path / "second.key"
    assert main(["zk", "secret", "--out", str(first), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == sha256_hex(first.read_bytes())
    assert main(["zk", "secret", "--out", str(second)]) == 0
    assert sha256_hex(second.read_bytes()) in capsys.readouterr().out
    assert (first.stat().st_mode & 0o777, len(first.read_bytes())) == (0o600, 32)
    assert first.read_bytes() != second.read_bytes()
    kept = first.read_bytes()
    assert main(["zk", "secret", "--out", str(first)]) == 2
    assert "exists already; a run may need it" in capsys.readouterr().err
    assert first.read_bytes() == kept


def test_a_kit_is_made_shown_and_rebuilt(tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ezkl")
    srs, out = tmp_path / "srs", tmp_path / "kit"
    assert main(["zk", "srs", "new", "--logrows", "9", "--out", str(srs), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made == {"class": "verifier", "logrows": 9, "sha256": sha256_hex(srs.read_bytes())}
    assert setup(out, "--program", program, "--srs", srs, "--columns", 2, "--json") == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert "part 2 of 2: first proof" in told.err
    kit = open_kit(out)
    assert found["circuit_sha256"] == kit.circuit.sha256()
    assert found["srs_sha256"] == made["sha256"]
    assert found["program_sha256"] == sha256_hex(program.read_bytes())
    assert (len(found["proof_bytes"]), kit.circuit.columns) == (2, 2)
    assert main(["zk", "rebuild-vk", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    circuit = json.loads((out / "circuit.json").read_bytes())
    changed = {**circuit, "constants_point": "11" * 64}
    (out / "circuit.json").write_text(json.dumps(changed, sort_keys=True, separators=(",", ":")))
    assert main(["zk", "rebuild-vk", str(out)]) == 1
    assert "constants_point differ" in capsys.readouterr().err


def test_rebuild_refuses_what_is_no_kit(tmp_path: Path) -> None:
    assert main(["zk", "rebuild-vk", str(tmp_path)]) == 2
    kit = tmp_path / "kit"
    stand_in_kit(kit, small_program())
    for name in ("srs", "part-0/vk", "part-0/settings.json"):
        bent = Path(shutil.copytree(kit, tmp_path / name.replace("/", "-")))
        (bent / name).write_bytes(b"short")
        assert main(["zk", "rebuild-vk", str(bent)]) == 1
        (bent / name).unlink()
        assert main(["zk", "rebuild-vk", str(bent)]) == 2


def test_show_says_what_a_program_computes(tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zk", "show", str(program)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mlp 8-4-3 relu, half squared error, sgd 2^-3, batch 2"
    for line in (
        "  state    0.weight: 4 x 8 integers v over 2^28, |v| < 2^34",
        "  field    image: 2 x 8 integers v over 2^4, 0 <= v < 2^5",
        "  field    label: 2 x 3, one of 3 marked",
        "  rounds   3 tensors, 22 values",
        "  proves   that the next state is the exact step; at most 65,536 steps of a run",
        f"  program  {sha256_hex(program.read_bytes())}",
    ):
        assert line in lines
    assert any(line.startswith("  circuit  1 part: ") and "of 2^10 rows" in line for line in lines)
    assert main(["zk", "show", str(program), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["operations"]["round"] == 3
    assert [item["name"] for item in found["fields"]] == ["image", "label"]


def test_show_says_how_far_a_float_step_may_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b = Builder(limb_bits=8)
    weight = b.state("w", [2], bits=4, width=6)
    x = b.batch("x", [1, 2], kind="signed", bits=4, width=3)
    b.set_next(weight, b.add(weight, b.reshape(x, [2])), slack=5)
    (tmp_path / "p").write_bytes(b.program(label="", batch=1, max_steps=4).to_bytes())
    assert main(["zk", "show", str(tmp_path / "p")]) == 0
    told = capsys.readouterr().out
    assert "that the next state lies within 2^5 units of the exact step; at most 4 steps" in told
    assert "x: 1 x 2 integers v over 2^4, -2^3 <= v < 2^3" in told
    assert told.startswith("a step without a name\n")


def test_show_says_what_a_kit_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = stand_in_kit(tmp_path / "kit", small_program(), columns=2)
    assert main(["zk", "show", str(tmp_path / "kit")]) == 0
    told = capsys.readouterr().out
    assert "circuit  2 parts: " in told
    assert f"  circuit  {kit.circuit.sha256()}" in told
    assert f"  srs      {kit.circuit.srs_sha256}" in told
    assert f"{sum(int(part.proof_bytes) for part in kit.circuit.parts):,} bytes" in told
    (tmp_path / "kit" / "part-1" / "vk").write_bytes(b"another")
    assert main(["zk", "show", str(tmp_path / "kit")]) == 1
    assert main(["zk", "show", str(tmp_path)]) == 2
    assert main(["zk", "show", str(tmp_path / "none")]) == 2


def test_a_name_that_hides_something_is_shown_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = json.loads(small_program().to_bytes())
    bent = Program.from_value({**value, "label": "mlp\x1b[2J\u202e"}, what="program")
    (tmp_path / "p").write_bytes(bent.to_bytes())
    assert main(["zk", "show", str(tmp_path / "p")]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\u202e" not in told


def test_an_srs_is_shown_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    srs = written_srs(tmp_path / "srs", 9)
    digest = sha256_hex(srs.read_bytes())
    assert main(["zk", "srs", "show", str(srs)]) == 0
    told = capsys.readouterr().out
    assert "2^9 rows" in told
    assert digest in told
    assert "insecure-local" in told
    monkeypatch.setattr("pot.zk.srs.PUBLIC_CEREMONY", {**PUBLIC_CEREMONY, 9: digest})
    assert main(["zk", "srs", "show", str(srs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"class": "public-ceremony", "logrows": 9, "sha256": digest}
    srs.write_bytes(srs.read_bytes() + b"\0")
    assert main(["zk", "srs", "show", str(srs)]) == 2
    assert main(["zk", "srs", "show", str(tmp_path / "none")]) == 2


def test_an_srs_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pot.zk.srs.make_srs", lambda *_: b"made")
    out = tmp_path / "srs"
    assert main(["zk", "srs", "new", "--logrows", "8", "--out", str(out)]) == 2
    assert main(["zk", "srs", "new", "--logrows", "9", "--out", str(out)]) == 0
    assert "class    verifier" in capsys.readouterr().out
    assert main(["zk", "srs", "new", "--logrows", "9", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == b"made"


def test_a_stand_in_kit_is_no_circuit_of_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, other = stand_in_kit(tmp_path / "kit", small_program()), stand_in_kit(tmp_path / "other", small_program(6))
    monkeypatch.setattr("pot.zk.engine.EzklEngine", StandIn(tmp_path / "prover"))
    monkeypatch.setattr("pot.zk.verifier.rebuild", lambda *_: other.verifying)
    assert main(["zk", "rebuild-vk", str(tmp_path / "kit")]) == 1
    assert "program_sha256" in capsys.readouterr().err
    monkeypatch.setattr("pot.zk.verifier.rebuild", lambda *_: made.verifying)
    assert main(["zk", "rebuild-vk", str(tmp_path / "kit")]) == 0
    assert "the verifying key is the one of its program" in capsys.readouterr().out
