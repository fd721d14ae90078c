"""`python -m pot.recording.scripts.attach SCRIPT ARGS`: run a script that knows nothing of pot, and record it.

Started by `pot run`, which puts its options into the variable POT_ATTACH, and by a replay, which needs no options: all
that matters stands in the staged pre-commitment. The script is `__main__` and sees its own arguments.

Covered: a loop over one `torch.utils.data.DataLoader` of exactly the committed records, one optimizer, one module, one
scheduler, one gradient scaler. Not covered, and said in `run/notes.txt`: other loaders, seeds that the script sets,
files that are not committed, modules beside the model. A script can find out that it is replayed, and may do otherwise
then: what counts is that the replay gives the committed states.

Shows: nothing by itself. Does not show: what happened outside the recorded objects.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import traceback
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pot.canonical import write_file
from pot.errors import MissingExtra, PotError, Refused, UsageError
from pot.recording import replaying
from pot.recording.begin import talk
from pot.recording.describe import Options
from pot.recording.precommit import Parent
from pot.recording.scripts.driving import Driver
from pot.recording.scripts.launched import Launched
from pot.recording.scripts.orphaned import end_with_parent
from pot.recording.scripts.seen import Notes, Reads
from pot.recording.writing.writer import OnError

__all__ = ["NOTES_FILE", "OPTIONS_VARIABLE", "Attachment", "main"]

OPTIONS_VARIABLE: Final = "POT_ATTACH"
NOTES_FILE: Final = "notes.txt"
_UNFINISHED: Final = 3
_INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Attachment:
    """What `pot run` hands over: the run's folder, the arguments of `begin`, and where the report is to be written."""

    run: str
    report: str
    begin: dict[str, Any] = field(default_factory=dict)
    on_error: OnError = "stop"

    def to_text(self) -> str:
        """As the value of POT_ATTACH."""
        return json.dumps({item.name: getattr(self, item.name) for item in fields(self)})


def main(arguments: list[str]) -> int:
    """Run the script and return the exit code: 0 recorded, 3 not all promised steps, else as the error's."""
    notes = Notes()
    report, run_dir, sentence, code = None, None, None, 1
    try:
        if not arguments:
            raise UsageError("python -m pot.recording.scripts.attach: give a script; 'pot run' does it for you")
        attachment, options = _options()
        if attachment is not None:
            report, run_dir = Path(attachment.report), Path(attachment.run)
            end_with_parent()
        sentence, code = _record(arguments, attachment, options, notes)
    except PotError as error:
        if os.environ.get("POT_DEBUG") == "1":
            traceback.print_exc()
        sentence, code = str(error), error.exit_code
    except KeyboardInterrupt:
        sentence, code = None, _INTERRUPTED
    if run_dir is not None and (run_dir / "precommit.json").exists():
        write_file(run_dir / NOTES_FILE, "".join(f"{note}\n" for note in notes.all()).encode("utf-8", "replace"))
    if report is None:
        if sentence is not None:
            talk(sentence)
    else:
        told = {"code": code, "sentence": sentence, "notes": notes.all(), "said": notes.said()}
        write_file(report, json.dumps(told).encode())
    return code


def _options() -> tuple[Attachment | None, Options]:
    replay = replaying.requested()
    if replay is not None:
        return None, Options(config=replaying.staged(replay)[0].config)
    text = os.environ.pop(OPTIONS_VARIABLE, None)
    if text is None:
        raise UsageError(
            "python -m pot.recording.scripts.attach: is started by 'pot run' or by a replay, which say what to record"
        )
    attachment = Attachment(**json.loads(text))
    given = dict(attachment.begin)
    parent = given.pop("parent", None)
    return attachment, Options(
        **given, parent=None if parent is None else Parent.from_value(parent, what="parent"), launcher="attach"
    )


def _record(
    arguments: list[str], attachment: Attachment | None, options: Options, notes: Notes
) -> tuple[str | None, int]:
    """Why this ends as it does, and the exit code."""
    script = Path(arguments[0])
    if not script.is_file():
        raise UsageError(f"{script}: no such script; start it as python {script} would be started")
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtra("train", "recording a script from outside") from None
    run_dir = Path(attachment.run if attachment is not None else ".")
    reads = None
    if attachment is not None:
        reads = Reads(Path.cwd().resolve(), (), run_dir)
        sys.addaudithook(reads.hook)
    launched = Launched(run_dir, options, notes, reads)
    driver = Driver(launched, attachment.on_error if attachment is not None else "stop")
    _install(driver)
    process = os.getpid()
    code = _execute(script, arguments, driver)
    if os.getpid() != process:  # a child that the script has forked: the run is its parent's
        raise SystemExit(code)
    for sentence in reads.sentences() if reads is not None else ():
        notes.add(sentence)
    return _ended(driver, code)


def _ended(driver: Driver, code: int) -> tuple[str | None, int]:
    if isinstance(driver.failure, PotError):
        raise driver.failure
    if isinstance(driver.failure, SystemExit):  # a replay has its last step
        return None, 0
    if code or driver.failure is not None:
        return f"the script ended with exit code {code or 1} {_where(driver)}", 1
    driver.finish()
    if driver.phase == "over":
        return None, 0
    driver.stop(Refused("the script ended"))
    sentence = (
        f"the script ended {_where(driver)}: the run is not finished; promise what the script does"
        " (--steps, --epochs) in a new run folder"
    )
    return sentence, _UNFINISHED


def _where(driver: Driver) -> str:
    """How far the run is; where it has not begun, of what the options promise."""
    options, begun = driver.launched.options, driver.launched.begun
    config = options.config or {}
    steps = begun.precommit.steps if begun is not None else options.steps or config.get("steps")
    return f"after step {driver.done} of {steps if steps is not None else str(config.get('epochs')) + ' epochs'}"


def _execute(script: Path, arguments: list[str], driver: Driver) -> int:
    """Run the script as `python SCRIPT` would, and return its exit code."""
    sys.argv = list(arguments)
    sys.path.insert(0, str(script.resolve().parent))
    module = ModuleType("__main__")
    vars(module).update(__file__=str(script), __builtins__=builtins, __spec__=None)
    sys.modules["__main__"] = module
    try:
        exec(compile(script.read_bytes(), str(script), "exec", dont_inherit=True), vars(module))  # noqa: S102
        return 0
    except SystemExit as leaving:
        if leaving is driver.failure or leaving.code in (None, 0):
            return 0
        driver.stop(leaving)
        if not isinstance(leaving.code, int):
            print(leaving.code, file=sys.stderr)  # noqa: T201
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException as error:
        driver.stop(error)
        if isinstance(error, KeyboardInterrupt):
            raise
        if error is not driver.failure or not isinstance(error, PotError):
            traceback.print_exception(error.with_traceback(_below(error)))
        return 1


def _below(error: BaseException) -> Any:
    """The traceback from the script's first line on."""
    return error.__traceback__.tb_next if error.__traceback__ is not None else None


def _install(driver: Driver) -> None:
    """Put our ears where the script will pass: modules, loaders, optimizers, losses, seeds."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    register_optimizer_step_pre_hook(lambda optimizer, *_: driver.before_step(optimizer))
    register_optimizer_step_post_hook(lambda *_: driver.after_step())
    process = os.getpid()

    def theirs() -> bool:
        return not driver.launched.busy and os.getpid() == process

    _seeds(driver, theirs)
    _loaders(driver, theirs)
    _losses(driver)
    init: Any = torch.nn.Module.__init__

    @wraps(init)
    def made(module: Any, *arguments: Any, **named: Any) -> None:
        if driver.launched.begun is None and theirs():
            driver.begin()
        init(module, *arguments, **named)

    torch.nn.Module.__init__ = made  # type: ignore[method-assign, assignment]


def _seeds(driver: Driver, theirs: Any) -> None:
    import random

    import numpy
    import torch

    def heard(name: str, function: Any) -> Any:
        @wraps(function)
        def seed(*arguments: Any, **named: Any) -> Any:
            if theirs():
                driver.launched.seeds(name)
            return function(*arguments, **named)

        return seed

    torch.manual_seed = torch.random.manual_seed = heard("torch.manual_seed", torch.manual_seed)
    random.seed = heard("random.seed", random.seed)
    numpy.random.seed = heard("numpy.random.seed", numpy.random.seed)


def _loaders(driver: Driver, theirs: Any) -> None:
    from torch.utils.data import DataLoader

    begin, length = DataLoader.__iter__, DataLoader.__len__

    @wraps(begin)
    def batches(loader: Any) -> Any:
        found = driver.drives(loader) if theirs() else None
        return begin(loader) if found is None else found

    @wraps(length)
    def count(loader: Any) -> int:
        found = driver.length(loader)
        return length(loader) if found is None else found

    DataLoader.__iter__ = batches  # type: ignore[method-assign]
    DataLoader.__len__ = count  # type: ignore[method-assign]


def _losses(driver: Driver) -> None:
    """What `backward` is called on; while steps are passed over, nothing flows back and no scaler counts."""
    import torch

    backward: Any = torch.autograd.backward
    step, update = torch.amp.GradScaler.step, torch.amp.GradScaler.update

    @wraps(backward)
    def flow(tensors: Any, *arguments: Any, **named: Any) -> Any:
        driver.backward(tensors)
        return None if driver.phase == "passing" else backward(tensors, *arguments, **named)

    @wraps(step)
    def scaled(scaler: Any, optimizer: Any, *arguments: Any, **named: Any) -> Any:
        if driver.phase == "passing":
            driver.before_step(optimizer)
            found = None
        else:
            found = step(scaler, optimizer, *arguments, **named)
        driver.after_step()
        return found

    @wraps(update)
    def counted(scaler: Any, *arguments: Any, **named: Any) -> None:
        if driver.phase != "passing":
            update(scaler, *arguments, **named)

    torch.autograd.backward = flow
    torch.amp.GradScaler.step = scaled  # type: ignore[method-assign, assignment]
    torch.amp.GradScaler.update = counted  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    from pot.recording.scripts import attach  # one copy of this module, not a second one under another name

    sys.exit(attach.main(sys.argv[1:]))
