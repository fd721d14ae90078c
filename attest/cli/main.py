"""The command `pot`: which module does which job, and what each way of ending means to the caller.

Exit codes (`specs/verification.md`): 0 PASS, 1 DENY, 2 usage, 3 INCOMPLETE, 4 environment, 70 internal, 130
interrupted, 129 and 143 ended by SIGHUP and SIGTERM. Code 1 is a verdict. It leaves here only when a command says so
itself, by `typer.Exit(1)` or by `Refused`; an accident, whatever it is, ends with 70, because a caller must never read
a crash as "the certificate is false".

Only the module of the command that was asked for is imported, so `pot verify` stays light; `pot --version` loads
nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from attest.cli.ending import heard, listen
from attest.cli.terminal import clean, prepare, say
from pot import __version__
from pot.errors import EnvironmentFailure, PotError

if TYPE_CHECKING:
    import typer

__all__ = ["EXTENSION_GROUP", "JOBS", "build", "main", "run"]

JOBS: Final[dict[str, str]] = {
    "demo": "attest.cli.demo",
    "data": "attest.cli.data",
    "run": "attest.cli.train",
    "status": "attest.cli.run",
    "show": "attest.cli.run",
    "challenge": "attest.cli.challenge",
    "audit": "attest.cli.audit",
    "prove": "attest.cli.prove",
    "zk": "attest.cli.zk",
    "certify": "attest.cli.certify",
    "verify": "attest.cli.verify",
    "inspect": "attest.cli.inspect",
    "explain": "attest.cli.explain",
    "keygen": "attest.cli.keys",
    "policy": "attest.cli.policy",
    "doctor": "attest.cli.doctor",
}
"""Each command and the module that registers it, in the order of the help."""

EXTENSION_GROUP: Final = "pot.commands"
"""Installed distributions add commands through entry points of this group: name = the command's name."""

_INTERNAL: Final = 70
_ENVIRONMENT: Final = 4
_USAGE: Final = 2
_INTERRUPTED: Final = 130
_MAX_SENTENCE: Final = 1500
_KEPT: Final = 600


def run() -> NoReturn:
    """The console script: run the command line and leave the process with its exit code."""
    prepare()
    listen()
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()  # a full disk shows only now, and must not pass for success
    except BrokenPipeError:
        code = _silence()
    except OSError as error:
        say(f"pot: the output could not be written: {error.strerror or error}")
        _silence()
        code = _ENVIRONMENT
    sys.exit(code)


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code; every way of ending is mapped, no exception leaves."""
    try:
        if arguments == ["--version"]:  # nothing is imported for it
            print(f"pot {__version__}")  # noqa: T201
            return 0
        return _dispatch(arguments)
    except PotError as error:
        _trace()
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        number = heard()
        how = "interrupted" if number is None else f"ended by {number.name}"
        say(f"pot: {how}; the same command goes on from what was finished, where it keeps that")
        return _INTERRUPTED if number is None else 128 + number
    except BrokenPipeError:
        return _silence()
    except SystemExit as error:
        return _after_system_exit(error)
    except (OSError, MemoryError) as error:
        _trace()
        _complain(_environment_sentence(error))
        return _ENVIRONMENT
    except BaseException as error:  # a Rust panic reaches Python as a BaseException that is no Exception
        _trace()
        say(
            f"pot: internal error ({type(error).__name__}: {str(error)[:300]}); this is a defect of the program, not a"
            " verdict; POT_DEBUG=1 shows where it happened"
        )
        return _INTERNAL


def build(only: str = "") -> typer.Typer:
    """The typer app with the command `only`, or with all commands when it is empty or unknown."""
    import typer

    app = typer.Typer(
        name="pot",
        help=(
            "Proof of training: show which data, code and seed produced a model, and check what others show.\n\n"
            "Exit codes: 0 PASS, 1 DENY, 2 usage, 3 INCOMPLETE, 4 environment, 70 internal, 130 interrupted.\n\n"
            "Example: pot verify MODEL_DIR --policy policy.yaml"
        ),
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,  # locals hold keys
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )

    @app.callback()
    def _root(
        version: bool = typer.Option(False, "--version", help="Print the version and leave.", callback=_show_version),
    ) -> None:
        """Options before the command."""

    if only in JOBS:
        importlib.import_module(JOBS[only]).register(app)
        return app
    for module in dict.fromkeys(JOBS.values()):
        importlib.import_module(module).register(app)
    for register in _extensions(only):
        register(app)
    return app


def _dispatch(arguments: list[str]) -> int:
    import typer

    app = build(next((word for word in arguments if not word.startswith("-")), ""))
    command = typer.main.get_command(app)
    try:
        result = command.main(args=arguments, prog_name="pot", standalone_mode=False)
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "pot"
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help of the group
            print(error.format_message(), file=sys.stderr)  # noqa: T201
        else:
            _complain(f"{error.format_message().rstrip('.')}; see '{path} --help'")
        return _USAGE
    if result == _INTERRUPTED:  # what typer makes of it, without a word
        raise KeyboardInterrupt
    return result if type(result) is int else 0  # not standalone: `typer.Exit(n)` comes back as the number n


def _extensions(only: str) -> list[Callable[[Any], None]]:
    """The `register` functions of installed extensions, or only that of the command `only` if an extension has it."""
    from importlib.metadata import entry_points

    found: list[Callable[[Any], None]] = []
    entries = [entry for entry in entry_points(group=EXTENSION_GROUP) if entry.name not in JOBS]
    wanted = [entry for entry in entries if entry.name == only] or entries
    for entry in sorted(wanted, key=lambda entry: entry.name):
        try:
            found.append(entry.load())
        except Exception as error:
            if entry.name == only:
                raise EnvironmentFailure(
                    f"command {entry.name}: its module {entry.module} cannot be loaded ({error}); reinstall its package"
                ) from error
            say(f"pot: command {entry.name} is left out: its module {entry.module} cannot be loaded ({error})")
    return found


def _show_version(value: bool) -> None:
    import typer

    if value:
        typer.echo(f"pot {__version__}")
        raise typer.Exit


def _after_system_exit(error: SystemExit) -> int:
    """A library that leaves by itself speaks for the environment or for a defect, never for a verdict."""
    if isinstance(error.__context__, BrokenPipeError):
        return _silence()
    if error.code in (None, 0):
        return 0
    _trace()
    say(f"pot: internal error: a library ended the program with {error.code!r}; this is a defect, not a verdict")
    return _INTERNAL


def _silence() -> int:
    """The reader went away: say nothing more, also not when the interpreter flushes at its end."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # standard output is no file descriptor, so there is nothing to flush either
        return _ENVIRONMENT
    return _ENVIRONMENT


def _environment_sentence(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; close other programs or use a machine with more"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; check the disk, the permissions and the limits of this process"


def _complain(sentence: str) -> None:
    """Say what is wrong; what a document or a name brings into the sentence may be long, its ends say enough."""
    short = sentence if len(sentence) <= _MAX_SENTENCE else f"{sentence[:_KEPT]} ... {sentence[-_KEPT:]}"
    say(f"pot: {short}")


def _trace() -> None:
    if os.environ.get("POT_DEBUG") == "1":
        import traceback

        for line in traceback.format_exc().splitlines():
            print(clean(line), file=sys.stderr)  # noqa: T201
