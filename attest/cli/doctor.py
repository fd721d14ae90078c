"""`pot doctor`: what this installation can do, what it cannot, and which command changes that.

Shows: versions, which extras are installed and which commands and checks need them, and the machine's limits.
Does not show: whether a library works; nothing heavy is imported, versions come from the installed metadata.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import typer

from attest.cli.terminal import clean

__all__ = ["EXTRAS", "examine", "register"]

BASE: Final = (
    "blake3", "cryptography", "jinja2", "numpy", "pydantic", "rfc8785", "ruamel.yaml", "safetensors", "typer",
)  # fmt: skip
"""Distributions that every installation has."""

EXTRAS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "train": (("torch",), "record and replay PyTorch training: pot audit, pot demo"),
    "zk": (("ezkl", "onnx"), "make and check step proofs; without it pot verify reports them as not_checked"),
    "sigstore": (("sigstore", "in-toto"), "keyless signatures and in-toto layouts"),
    "server": (("fastapi", "uvicorn"), "pot serve"),
    "demo": (("torch", "ezkl", "onnx", "scikit-learn"), "pot demo"),
    "data": (("pyarrow", "pillow"), "read Parquet, Arrow, datasets folders, zstd and images"),
    "fast": (("numba",), "hash many small records faster"),
    "hiding": (("pynacl",), "hidden leaves that others can ask about: pot data ask, answer, check-answer"),
    "hf": (("transformers", "accelerate"), "recorder for the Hugging Face trainer"),
    "lightning": (("lightning",), "recorder for Lightning"),
    "ray": (("ray",), "commit shards on a cluster"),
    "postgres": (("psycopg",), "store of pot serve in PostgreSQL"),
}
"""Each extra, the distributions that it brings, and what they serve."""


def register(app: typer.Typer) -> None:
    """Add `pot doctor`."""

    @app.command()
    def doctor(
        as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
    ) -> None:
        """Show what this installation can do, and how to get what is missing.

        Example: pot doctor --json
        """
        findings = examine()
        typer.echo(json.dumps(findings, sort_keys=True) if as_json else "\n".join(map(clean, _lines(findings))))
        if any(found is None for found in findings["base"].values()):
            raise typer.Exit(4)


def examine() -> dict[str, Any]:
    """The findings as a JSON value; a package that is not installed has the version null."""
    from pot import __version__

    return {
        "pot": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": _machine(),
        "base": {name: _installed(name) for name in BASE},
        "extras": {
            extra: {
                "installed": all(_installed(name) is not None for name in names),
                "packages": {name: _installed(name) for name in names},
                "serves": purpose,
                "command": f"pip install 'pot-attest[{extra}]'",
            }
            for extra, (names, purpose) in EXTRAS.items()
        },
    }


def _machine() -> dict[str, Any]:
    temporary = Path(tempfile.gettempdir())
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "temporary_folder": str(temporary),
        "temporary_free_bytes": shutil.disk_usage(temporary).free,
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _lines(findings: dict[str, Any]) -> list[str]:
    machine = findings["machine"]
    lines = [
        f"pot {findings['pot']}, Python {findings['python']}, {findings['platform']}",
        f"machine     {machine['cores']} cores, {_gib(machine['memory_bytes'])} memory",
        f"temporary   {_gib(machine['temporary_free_bytes'])} free in {machine['temporary_folder']}",
        "base        " + ", ".join(f"{name} {found or 'MISSING'}" for name, found in findings["base"].items()),
    ]
    for extra, entry in findings["extras"].items():
        state = "yes" if entry["installed"] else "no "
        hint = "" if entry["installed"] else f"  ({entry['command']})"
        lines.append(f"[{extra}]".ljust(12) + f"{state}  {entry['serves']}{hint}")
    return lines
