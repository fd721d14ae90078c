"""The error tree: the only exceptions that leave the three packages.

Each error is one sentence that says what is wrong, where, and what to do next. `exit_code` is what the
command line returns for it (`specs/verification.md`, "Exit codes").
"""

from __future__ import annotations

__all__ = [
    "EnvironmentFailure",
    "LimitExceeded",
    "Malformed",
    "MissingExtra",
    "PotError",
    "Refused",
    "Undecided",
    "UsageError",
]


class PotError(Exception):
    """Base of every error raised on purpose. `str(error)` is one sentence fit for a user."""

    exit_code = 70


class UsageError(PotError):
    """The caller asked for something that makes no sense: a missing file, contradictory options."""

    exit_code = 2


class Malformed(UsageError):
    """Bytes from outside do not have the form that their format's specification demands."""


class LimitExceeded(Malformed):
    """Bytes from outside exceed a documented cap; raised before they are parsed or hashed."""


class Refused(PotError):
    """An operation was well formed but must not be done: a check that guards it said no."""

    exit_code = 1


class Undecided(Refused):
    """Refused for what is not there: the run is not finished, or files are lost; nothing was found false."""

    exit_code = 3


class EnvironmentFailure(PotError):
    """I/O, network or disk failed; a retry may help."""

    exit_code = 4


class MissingExtra(EnvironmentFailure):
    """An optional dependency is not installed; the sentence names the command that installs it."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the extra [{extra}], which is not installed: pip install 'pot-attest[{extra}]'"
        )
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.extra, self.purpose)  # crosses a process boundary
