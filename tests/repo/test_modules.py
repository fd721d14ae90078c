"""The house rules that a machine can check: one direction of imports, light imports, documented and exported names."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pot", "attest", "verifier_api")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = {
    "torch", "ezkl", "onnx", "sigstore", "in_toto", "fastapi", "starlette", "uvicorn", "sklearn", "scipy", "numba",
    "ray", "transformers", "accelerate", "lightning", "psycopg", "requests", "httpx", "urllib.request", "rich",
}  # fmt: skip


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after `code`."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    return set(ended.stdout.split())


def is_program(tree: ast.Module) -> bool:
    """A file that is run and never imported (a child process): its names are nobody else's."""
    return any(isinstance(node, ast.If) and "__name__" in ast.dump(node.test) for node in tree.body)


def test_programs_are_few() -> None:
    programs = [dotted(path) for path in MODULES if is_program(ast.parse(path.read_bytes()))]
    started_by_us = ["pot.recording.launch", "pot.recording.scripts.attach", "pot.zk.engine_child"]
    assert programs == ["attest.cli.__main__", "attest.schemas", *started_by_us]
    script = "import pot.zk.engine, pot.zk.prover, pot.zk.verifier"
    assert "pot.zk.engine_child" not in imported(script)


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 40


def test_imports_go_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run(
        [str(linter), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_says_what_it_is_and_what_it_exports(path: Path) -> None:
    tree = ast.parse(path.read_bytes())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    assigned = [
        (target, node.value)
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    exported = [
        ast.literal_eval(value) for target, value in assigned if isinstance(target, ast.Name) and target.id == "__all__"
    ]
    if not exported and (path.name == "__init__.py" or is_program(tree)):
        return
    assert len(exported) == 1, f"{path} has no __all__"
    defined = {
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            defined.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
    assert set(exported[0]) <= defined
    assert len(set(exported[0])) == len(exported[0])


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_bytes())
    for node in [] if is_program(tree) else tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"


def test_modules_are_named_by_their_noun() -> None:
    assert not [path for path in MODULES if path.stem in ("utils", "helpers", "common", "base", "types", "misc")]


def test_nothing_loads_a_pickle() -> None:
    """A pickle runs code when it is read; `torch.load` reads one."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & {
                "pickle",
                "cPickle",
                "dill",
                "cloudpickle",
                "marshal",
                "shelve",
            }, path
            if isinstance(node, ast.Attribute) and node.attr == "load" and isinstance(node.value, ast.Name):
                assert node.value.id not in ("torch", "joblib"), path


@pytest.mark.parametrize("code", ["import pot", "import attest", "import verifier_api", "import verifier_api.commands"])
def test_packages_are_light(code: str) -> None:
    assert not imported(code) & HEAVY


def test_importing_pot_imports_almost_nothing() -> None:
    assert not imported("import pot, attest") & {"numpy", "pydantic", "blake3", "typer", "cryptography", "jinja2"}


def test_verification_needs_no_extra() -> None:
    loaded = imported("import attest.cli.verify, attest.verdict.verify, attest.verdict.policy, attest.bundle")
    assert not loaded & HEAVY


def test_no_command_imports_an_extra_before_it_runs() -> None:
    assert not imported("from attest.cli.main import build; build()") & HEAVY


def test_test_files_have_names_of_their_own() -> None:
    """Without packages under tests/, two files of one name would hide each other from a reader of the results."""
    files = list((ROOT / "tests").rglob("*.py"))
    assert not [path for path in files if path.name == "__init__.py"]
    twice = [name for name, count in Counter(p.name for p in files if p.name != "conftest.py").items() if count > 1]
    assert twice == []
