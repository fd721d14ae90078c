"""Every command is listed, registered where the list says, and has a help with an example."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer

from attest.cli.main import EXTENSION_GROUP, JOBS, build
from pot import __version__

POT = str(Path(sys.executable).with_name("pot"))


def commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every command below `command` that does something, with its path."""
    if not hasattr(command, "commands"):
        return [(path, command)]
    return [found for name, below in sorted(command.commands.items()) for found in commands(below, (*path, name))]


ALL = commands(typer.main.get_command(build()))


def test_the_commands_are_the_listed_ones() -> None:
    extensions = {entry.name for entry in entry_points(group=EXTENSION_GROUP)}
    assert {path[0] for path, _ in ALL} == set(JOBS) | extensions
    assert "serve" in extensions


@pytest.mark.parametrize("module", sorted(set(JOBS.values())))
def test_a_module_registers_what_the_list_says(module: str) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    importlib.import_module(module).register(app)
    registered = typer.main.get_command(app)
    assert set(registered.commands) == {name for name, where in JOBS.items() if where == module}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "command"), ALL, ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_a_help_with_an_example(path: tuple[str, ...], command: Any) -> None:
    ended = subprocess.run(
        [POT, *path, "--help"], capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "120"}
    )
    assert ended.returncode == 0
    assert ended.stderr == ""
    usage, _, rest = ended.stdout.partition("\n\n")
    assert usage.startswith("Usage: pot " + " ".join(path))
    assert re.search(r"Examples?:.*\bpot " + " ".join(path) + r"\b", rest, re.DOTALL), ended.stdout
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"pot {' '.join(path)}: {parameter.name} has no help"


def test_the_version_is_that_of_the_distribution() -> None:
    for words in (["--version"], ["--version", "verify"]):
        ended = subprocess.run([POT, *words], capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"pot {__version__}\n", "")


def test_the_version_imports_nothing() -> None:
    """What keeps it under 0.3 seconds; the time itself depends on the machine and is not asserted."""
    script = (
        "import sys; sys.argv = ['pot', '--version']\n"
        "from attest.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit:\n    print('\\n'.join(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(ended.stdout.split())
    assert "attest.cli.main" in loaded
    assert not loaded & {"typer", "pydantic", "blake3", "numpy", "cryptography", "torch", "ezkl", "onnx", "fastapi"}


def test_an_extension_that_cannot_be_loaded_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Broken:
        name, module = "broken", "no.such.module"

        def load(self) -> None:
            raise ImportError("no such module")

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Broken()])
    from attest.cli import main as cli

    assert cli.main(["--help"]) == 0
    assert "broken is left out" in capsys.readouterr().err
    assert cli.main(["broken"]) == 4


def test_an_extension_cannot_replace_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Impostor:
        name, module = "verify", "impostor"

        def load(self) -> None:
            raise AssertionError("loaded an impostor")

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Impostor()])
    assert {path[0] for path, _ in commands(typer.main.get_command(build()))} == set(JOBS)
