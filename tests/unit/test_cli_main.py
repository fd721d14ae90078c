"""Every way of ending has its exit code, and only a command that says so ends with 1, the code of DENY."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from attest.cli import main as cli
from attest.cli.terminal import clean
from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, MissingExtra, PotError, Refused, UsageError


class RustPanic(BaseException):
    """As a panic in a native extension reaches Python."""


def ending(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any], *arguments: str) -> int:
    """Exit code of `pot doctor` whose command does `action`."""

    def build(only: str = "") -> typer.Typer:
        app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
        app.callback()(lambda: None)
        app.command("doctor")(action)
        return app

    monkeypatch.setattr(cli, "build", build)
    return cli.main(["doctor", *arguments])


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (typer.Exit(0), 0),
        (typer.Exit(1), 1),
        (typer.Exit(3), 3),
        (Refused("no"), 1),
        (UsageError("no"), 2),
        (Malformed("no"), 2),
        (LimitExceeded("no"), 2),
        (EnvironmentFailure("no"), 4),
        (MissingExtra("zk", "it"), 4),
        (PotError("no"), 70),
        (OSError(28, "No space left on device"), 4),
        (PermissionError(13, "Permission denied"), 4),
        (MemoryError(), 4),
        (ValueError("no"), 70),
        (RecursionError("no"), 70),
        (AssertionError(), 70),
        (RustPanic("no"), 70),
        (SystemExit(0), 0),
        (SystemExit(None), 0),
        (SystemExit(1), 70),
        (SystemExit(2), 70),
        (SystemExit("no"), 70),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
        (typer.BadParameter("no"), 2),
        (typer.TyperException("no"), 2),
    ],
    ids=repr,
)
def test_every_way_of_ending_has_its_code(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    assert ending(monkeypatch, raising(error)) == code


def test_a_returned_value_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending(monkeypatch, lambda: None) == 0
    assert ending(monkeypatch, lambda: True) == 0
    assert ending(monkeypatch, lambda: "1") == 0


def test_an_error_is_one_clean_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(monkeypatch, raising(UsageError("a\x1b[31m\nb\u202ec\u200bd\u2066e\ud800f\udb40\udc61"))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "pot: a[31m bcdef\n"


def test_a_traceback_is_shown_only_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("POT_DEBUG", raising=False)
    assert ending(monkeypatch, raising(ValueError("why"))) == 70
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("POT_DEBUG", "1")
    assert ending(monkeypatch, raising(ValueError("why"))) == 70
    assert "Traceback" in capsys.readouterr().err


def pot(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    code = "from attest.cli.main import run; run()"
    return subprocess.run([sys.executable, "-c", code, *arguments], text=True, timeout=60, **options)


def test_usage_errors_are_one_sentence() -> None:
    for arguments in (["bogus"], ["doctor", "--bogus"], ["doctor", "surplus"], ["--bogus"]):
        ended = pot(*arguments, capture_output=True)
        assert ended.returncode == 2, arguments
        assert ended.stdout == ""
        assert ended.stderr.count("\n") == 1
        assert "--help" in ended.stderr


def test_no_command_shows_the_help_and_is_a_usage_error() -> None:
    ended = pot(capture_output=True)
    assert ended.returncode == 2
    assert "verify" in ended.stdout + ended.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is a device of Linux")
def test_a_full_disk_is_no_success() -> None:
    with open("/dev/full", "w") as full:
        ended = pot("doctor", "--json", stdout=full, stderr=subprocess.PIPE)
        assert ended.returncode == 4
        assert ended.stderr.count("\n") == 1
        assert pot("--version", stdout=full, stderr=subprocess.PIPE).returncode == 4


def test_a_reader_that_goes_away_is_met_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = pot("doctor", stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert ended.returncode == 4
    assert ended.stderr == ""


def test_a_terminal_of_any_encoding_will_do() -> None:
    ended = pot("b\u00f6gus", capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert ended.returncode == 2
    assert "b\\xf6gus" in ended.stderr


def test_clean_keeps_what_people_write() -> None:
    assert clean("Gr\u00fc\u00dfe, \u4e16\u754c 1 + 1") == "Gr\u00fc\u00dfe, \u4e16\u754c 1 + 1"
    assert clean("one\ntwo\tthree") == "one two three"
    for character in "\x00\x07\x1b\x7f\x9b\u200b\u200e\u202e\u2060\u2069\ufeff\ufe0f\u3164\ue000\U000e0041":
        assert clean(f"a{character}b") == "ab", hex(ord(character))
