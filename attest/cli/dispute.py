"""`pot audit dispute`: where two accounts of one run part, or a run and your own replay: checkpoint, step, tensor.

Exit code: 0 when nothing differs, 1 when something does, 3 when a replay could not be decided here.

Shows / does not show: see `pot.audit.dispute`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from attest.cli.outputs import check_run
from attest.cli.terminal import counted, say, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from pot.audit.replaying.replay import Replayer
    from pot.recording.precommit import Precommit

__all__ = ["register"]


def register(audit: typer.Typer) -> None:
    """Add `dispute` below `pot audit`."""
    audit.command(name="dispute")(dispute)


def dispute(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory, or the first party's."),
    other: Path | None = typer.Argument(None, metavar="OTHER", help="The second party's run directory."),
    data: list[Path] = typer.Option([], "--data", help="File or folder that the program reads; repeatable."),
    code: Path = typer.Option(Path(), "--code", help="Folder of the program's code, paths as recorded."),
    segment: int | None = typer.Option(None, "--segment", min=1, help="Without OTHER: the segment to replay."),
    hide: list[Path] = typer.Option([], "--hide", help="Folder that the replayed program must not see; repeatable."),
    timeout: float = typer.Option(3600.0, "--timeout", min=1.0, help="Seconds for each replay."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
) -> None:
    """Narrow a dispute to the first differing checkpoint, step and tensor.

    Two run directories with one pre-commitment are compared by their transcripts; with --data, the program is replayed
    as well, which narrows further and says whose state this machine gives. One run directory is compared with your own
    replay of a segment.

    Examples:

    pot audit dispute run-a run-b

    pot audit dispute run-a run-b --data train.jsonl --code .

    pot audit dispute run --segment 3 --data train.jsonl --code .
    """
    from pot.audit.dispute import dispute as narrow
    from pot.audit.dispute import own_dispute
    from pot.audit.party import load_party
    from pot.errors import UsageError

    if other is None and (segment is None or not data):
        raise UsageError("give a second run directory, or --segment and --data to replay a segment of this one")
    if other is not None and segment is not None:
        raise UsageError("--segment is for one run alone; between two, the differing segment is found")
    for place in (run, other):
        if place is not None:
            check_run(place)
    hidden = [run, *([other] if other is not None else []), *hide]
    parties = [
        load_party(place, _replayer(place, data, code, timeout, hidden) if data else None)
        for place in (run, other)
        if place is not None
    ]
    if not data:
        say("no --data: the transcripts alone are compared, which names the checkpoint")
    found = narrow(*parties) if other is not None else own_dispute(parties[0], segment or 0)
    value = found.model_dump(mode="json", exclude_none=True)
    show(
        as_json,
        value,
        [
            found.sentence,
            f"compared {counted(int(found.digests), 'state digest')}, replayed {counted(int(found.replays), 'time')}",
        ],
    )
    if found.holds == "run" or (found.differs_by is None and found.holds is None):
        return
    raise typer.Exit(1 if other is not None or found.holds == "replay" else 3)


def _replayer(
    run: Path, data: list[Path], code: Path, timeout: float, hidden: list[Path]
) -> Callable[[Precommit, str], Replayer]:
    from pot.audit.replaying.replay import Replayer
    from pot.audit.replaying.sandbox import Limits

    def made(precommit: Precommit, nonce: str) -> Replayer:
        return Replayer(run, precommit, nonce, data, code, limits=Limits(seconds=timeout), hidden=hidden)

    return made
