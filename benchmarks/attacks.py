"""What catches each attack on a training transcript, and how often none of it does; beside the published rules.

    python benchmarks/attacks.py [--small] [--only A01,A21]

Every forger of `attacks_forgers.py` makes a run for each of 20 seeds (`--small`: one, and a handful of honest runs).
What is measured is accepting it:

    full       the chain holds, the nonce is the one issued, no segment is longer than the policy's, W_0 comes out of
               the seed, and all segments replay bit by bit (of 80, every seventh)
    screening  the chain holds, and screening, which executes nothing, flags no segment
    policy     as `full`, but of the segments only those that a challenge draws (forged 0.1, detect 0.9), and up to
               five that screening flags; the probability, exactly
    published  the rules of `proof_of_learning.py`: l1 <= 1000, l2 <= 10, l-infinity <= 0.1, cosine <= 0.01, and l2 at
               most a tenth of the distance between two trainings

The honest run is in the table too, and `false_alarms.py`'s runs after it. The exit code is 0 only if no forgery is
accepted by `full`, none with a probability above a tenth where a tenth of the segments is forged or more, no
honest run is refused, and no honest run is flagged.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")
for place in (Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent / "tests" / "simulator"):
    sys.path.insert(0, str(place))

from false_alarms import false_alarm_rows  # noqa: E402
from table import Row, finish  # noqa: E402

__all__ = ["Judged", "attack_rows", "measure"]

SEEDS: Final = 20
HONEST, HONEST_SMALL = 50, 4  # runs of `false_alarms.py`
FORGED, DETECT = "0.1", "0.9"
REPLAYED: Final = 12  # segments of a run at most, evenly: of A01's 80 every seventh
EXTRA: Final = 5  # suspicious segments that an audit replays besides the challenged ones
RULES: Final = ("l1", "l2", "linf", "cos", "normalised")


@dataclass(frozen=True)
class Judged:
    """One forgery under all rules. `bad` of `replayed` segments; `policy`: the probability of accepting."""

    attack: int
    caught: tuple[str, ...]
    screened: tuple[str, ...]
    bad: int
    replayed: int
    full: bool
    screening: bool
    policy: float
    published: tuple[bool, ...]


def judge(number: int, forgery: Any, reference: float, *, really: bool) -> Judged:
    """`really`: one of the replays is done once more by `Replayer` as it is, in a process of its own."""
    from attacks_learning import execute
    from proof_of_learning import verify

    published = verify(forgery.learning, execute, reference)
    told = tuple(published[rule] for rule in RULES)
    run = forgery.run
    codes = run.codes()
    if codes:  # an audit begins with a chain that holds
        return Judged(number, tuple(f"chain: {code}" for code in codes), (), 0, 0, False, False, 0.0, told)
    caught = _without_replay(forgery)
    named, order = _screened(run)
    init, outcomes = _replayed(run, really=really)
    bad = [index for index, outcome in outcomes.items() if outcome != "MATCH"]
    caught += ["INIT"] * (not init) + ["replay"] * bool(bad)
    return Judged(
        number, tuple(caught), named, len(bad), len(outcomes), not caught, not order,
        0.0 if set(caught) - {"replay"} else _policy(len(run.chain().segments), bad, order), told,
    )  # fmt: skip


def _without_replay(forgery: Any) -> list[str]:
    """What an audit or the policy compares besides: the nonce that was issued, the longest segment."""
    from attacks_forgers import LONGEST

    found, run = [], forgery.run
    if run.events()[0]["nonce"] != forgery.issued:
        found.append("nonce")
    if max(segment.last - segment.first + 1 for segment in run.chain().segments) > LONGEST:
        found.append("segment-length")
    return found


def _screened(run: Any) -> tuple[tuple[str, ...], list[int]]:
    """The checks that fired, and the segments, most suspicious first."""
    from pot.audit.screening.checks import screen

    found = screen(run.run_dir, run.precommit, run.chain())
    names = sorted({one.check for item in found.details for one in item.checks})
    return tuple(names), [int(number) for number in found.suspicious]


def _replayed(run: Any, *, really: bool) -> tuple[bool, dict[int, str]]:
    """Whether W_0 comes out of the seed, and the outcome of every segment."""
    from attacks_runs import in_forks

    chain = run.chain()
    assert chain.initial is not None
    with in_forks():
        replayer = run.replayer()
        some = chain.segments[:: -(-len(chain.segments) // REPLAYED)]
        replays = {segment.index: replayer.segment(segment) for segment in some}
    outcomes, initial = {index: replay.outcome for index, replay in replays.items()}, replays[1].initial
    if really:
        index = next((index for index, outcome in outcomes.items() if outcome != "MATCH"), 1)
        again = run.replayer().segment(chain.segments[index - 1])
        if again.outcome != outcomes[index]:
            raise RuntimeError(f"segment {index}: {outcomes[index]} in a fork, {again.outcome} alone: {again.detail}")
    # a program that did not come that far is caught by the replay
    return initial is None or initial == chain.initial.components, outcomes


def _policy(total: int, bad: Sequence[int], suspicious: Sequence[int]) -> float:
    """The probability that a challenge meets no bad segment, and the replays of suspicious ones do not either."""
    from pot.audit.challenges.challenge import detection, sample_size

    if set(suspicious[:EXTRA]) & set(bad):  # drawn or not, it is replayed
        return 0.0
    return float(1 - detection(total, len(bad), sample_size(total, FORGED, DETECT)))


def measure(seed: int, chosen: Sequence[int], really: Sequence[int] = ()) -> list[Judged]:
    """All chosen attacks of one seed; one replay of each of `really` is the auditor's own."""
    import numpy as np
    from attacks_forgers import ATTACKS
    from attacks_runs import MEMORY, prepare
    from attacks_world import World
    from forgeries import states

    found = []
    with tempfile.TemporaryDirectory(prefix="pot-attacks-", dir=MEMORY) as place:
        folder = Path(place)
        runs = [prepare(folder / name, Random(f"{seed} {name}").randbytes(32).hex()) for name in ("honest", "donor")]
        for run in runs:
            run.record()
        ends = [max(states(run).items())[1].vector() for run in runs]
        reference = float(np.linalg.norm(ends[0] - ends[1]))
        for number in chosen:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                world = World(Path(own), runs[0], runs[1], seed)
                found.append(judge(number, ATTACKS[number].forge(world), reference, really=number in really))
    return found


def attack_rows(
    seeds: int, honest: int, only: Sequence[str] = (), workers: int = 2
) -> tuple[list[Row], list[list[str]]]:
    """The rows of the table, with those of `honest` runs of `false_alarms.py`, and the lines of the one beside it."""
    from attacks_forgers import ATTACKS

    chosen = [number for number, attack in enumerate(ATTACKS) if not only or attack.id in only]
    judged: list[Judged] = []
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        tasks: list[Future[list[Judged]]] = []
        # the first seed takes longest: `Replayer` starts a process for each attack
        parts = [chosen[at::workers] for at in range(workers)]
        really = chosen if seeds > 1 else chosen[:: max(1, len(chosen) // 2)]
        tasks += [pool.submit(measure, 0, part, really) for part in parts if part]
        alarms = pool.submit(false_alarm_rows, honest) if honest else None
        tasks += [pool.submit(measure, seed, chosen) for seed in range(1, seeds)]
        for done, task in enumerate(tasks, 1):
            judged += task.result()
            print(f"{done} of {len(tasks)} parts", file=sys.stderr)
    rows: list[Row] = []
    lines = []
    for number in chosen:
        of = [item for item in judged if item.attack == number]
        rows += _rows(ATTACKS[number], of)
        lines.append(_line(ATTACKS[number], of))
    rows += [
        Row(f"published rules: {ATTACKS[number].label}", accepted[1], "accepted by l2 <= 10",
            "all five: " + "/".join(map(str, accepted)), accepted[1] / seeds, 1)
        for number in chosen
        for accepted in [_published([item for item in judged if item.attack == number])]
    ]  # fmt: skip
    found = alarms.result() if alarms is not None else []
    return rows + [row for row in found if seeds > 1 or row.name != "honest runs screened"], lines  # its goal is 50


def _published(of: Sequence[Judged]) -> list[int]:
    return [sum(item.published[at] for item in of) for at in range(len(RULES))]


def _rows(attack: Any, of: Sequence[Judged]) -> list[Row]:
    count = len(of)
    accepted = sum(item.full for item in of)
    if attack.honest:
        flagged = count - sum(item.screening for item in of)
        return [
            Row("honest runs refused", count - accepted, "runs", f"of {count}", (count - accepted) / count, 0),
            Row("honest runs flagged", flagged, "runs", f"of {count}", flagged / count, 0),
        ]
    rows = [Row(f"{attack.label}: full", accepted, "false accepts", f"of {count}", accepted / count, 0)]
    if all(item.replayed == 0 or item.bad / item.replayed >= float(FORGED) or item.policy == 0 for item in of):
        expected = sum(item.policy for item in of)
        rows.append(Row(f"{attack.label}: policy", expected, "false accepts", f"of {count}", expected / count, 0.1))
    return rows


def _line(attack: Any, of: Sequence[Judged]) -> list[str]:
    caught = Counter(name for item in of for name in item.caught)
    screened = Counter(name for item in of for name in item.screened)
    bad, replayed = sum(item.bad for item in of), sum(item.replayed for item in of)
    by = ", ".join(
        name + (f" {bad / len(of):.3g}/{replayed / len(of):.3g}" if name == "replay" else "") for name in caught
    )
    return [
        attack.id, attack.name, by or "-", ", ".join(f"{name} {n}" for name, n in screened.most_common(4)) or "-",
        str(sum(item.full for item in of)), str(sum(item.screening for item in of)),
        f"{sum(item.policy for item in of):.2f}", *map(str, _published(of)),
    ]  # fmt: skip


def print_lines(lines: Sequence[Sequence[str]], seeds: int) -> None:
    """The table that people read; the rows that follow are its numbers beside their goals."""
    own = ("full", "screening", "policy")
    head = ["id", "attack", "caught by (segments)", "flagged by (seeds)", *own, *RULES[:4], "norm."]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    print(f"accepted of {seeds}: by ours (full replay, screening alone, challenge of a policy), by the published rules")
    for line in (head, *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(
        "Replays run in a fork of one process, with the same staging and comparison; at full size one replay of every"
        " attack\nis repeated as an auditor does it, in a process of its own behind its walls. A23 is in tests/attacks;"
        " A24 is a limit;\nwhat the memorization test sees of A11 and A12 is in make bench-memorization. The published"
        " thresholds are absolute\nand meant for larger models; norm. is theirs, as a tenth of the distance between two"
        " trainings. A rule that accepts less\nthan all honest runs refuses by its test of W_0, one in a hundred for"
        " each tensor.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one seed, few honest runs")
    parser.add_argument("--only", default="", help="attacks by id, with commas between them")
    options = parser.parse_args()
    seeds = 1 if options.small else SEEDS
    only = [name for name in options.only.split(",") if name]
    honest = 0 if only else HONEST_SMALL if options.small else HONEST
    rows, lines = attack_rows(seeds, honest, only)
    print_lines(lines, seeds)
    finish("attacks", rows)


if __name__ == "__main__":
    main()
