"""The forgers of `benchmarks/attacks.py`: each makes a run that is not what it says, and makes right what can be.

Every forger gets the same `World`: an honest run, another one (the donor) and the seed of its own choices. It gives a
`Forgery`: the run for our checks, and what it would tell a verifier of proofs of learning, who believes more.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from attacks_learning import learning_of, steered
from attacks_program import BATCH
from attacks_runs import RECORDS, DigitsRun, prepare, records
from attacks_world import (
    Change,
    Forgery,
    Items,
    World,
    batch_of,
    begin_anew,
    count_back,
    told,
    with_adam,
    with_batches,
    with_start,
)
from forgeries import (
    forge_donor_moments,
    forge_jump,
    forge_largest_only,
    forge_line,
    forge_reversed,
    rewrite,
    states,
    steps_of,
)

__all__ = ["ATTACKS", "LONGEST", "Attack"]

LONGEST: Final = 50
"""Steps of the longest segment that the policy takes (A61)."""

RATE: Final = 0.003
MIDDLE: Final = 6


def honest(world: World) -> Forgery:
    """No forgery: what all checks must pass."""
    return told(world.copy())


def line(world: World) -> Forgery:
    run = prepare(world.folder / "program", world.nonce("own"), steps=80, every=1)
    run.record()
    forge_line(run, rate=1e-9, seed=world.seed)
    return told(run)


def noisy_line(world: World) -> Forgery:
    """To the donor's weights, hidden in noise, with moments of gradients that lead there, and the rates they need."""
    run, last = world.copy(), states(world.donor)
    target = last[max(last)].vector()
    forge_line(run, rate=0, moments="fitting", noise=0.3, target=target, seed=world.seed)
    return told(run)


def hidden_rate(world: World) -> Forgery:
    def change(_: Any, optimizer: Any) -> None:
        optimizer.param_groups[0]["lr"] = 5 * RATE

    return told(world.train(with_start(change)))


def largest(world: World) -> Forgery:
    run = world.copy()
    forge_largest_only(run, keep=5)
    return told(run)


def jump(world: World) -> Forgery:
    run = world.copy()
    forge_jump(run, world.donor, at=MIDDLE)
    return told(run)


def steered_inputs(world: World) -> Forgery:
    """Inputs that lead from W_0 to the donor's weights. They are found when W_0 and the order are known, so that the
    pre-commitment has to be written anew, with a start that fits it."""
    run = world.copy()
    own, other = states(run), states(world.donor)
    forge_line(run, rate=RATE, target=other[max(other)].vector(), seed=world.seed)
    learning = steered(own[0], other[max(other)], world.seed)
    document = json.loads((run.run_dir / "precommit.json").read_bytes())
    # in place of the new commitment's digest: any other than the old one's gives another seed
    document["data"][0]["commitment_sha256"] = learning.hashes[0]
    begin_anew(run, document)
    return Forgery(run, run.issued, learning)


def sorted_weights(world: World) -> Forgery:
    """Pretrained weights put in the place of an initialisation: the values of a fresh one, in the pretrained order."""
    pretrained = states(world.donor)
    last = pretrained[max(pretrained)].model

    def change(model: Any, _: Any) -> None:
        import torch

        for name, parameter in model.named_parameters():
            values = parameter.detach().numpy()
            ranks = np.argsort(np.argsort(last[name].ravel()))
            drawn = np.sort(values.ravel())[ranks].reshape(values.shape)
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(drawn))

    return told(world.train(with_start(change)))


def lucky_seed(world: World) -> Forgery:
    """Of two runs with nonces of its own, the one that ended better; the verifier had issued a third."""

    def last_loss(run: DigitsRun) -> float:
        return sum(float(event["loss"]) for event in run.events() if event["type"] == "step")

    best = min((world.honest, world.donor), key=last_loss)
    return replace(told(best.copy(world.folder / "program")), issued=world.nonce("issued"))


def order_found_afterwards(world: World) -> Forgery:
    run = world.copy()
    learning = learning_of(run)
    document = json.loads((run.run_dir / "precommit.json").read_bytes())
    document["run_id"] = world.nonce("another run id")
    begin_anew(run, document)
    return Forgery(run, run.issued, learning)


def harmful_order(world: World) -> Forgery:
    """All of one label, then all of the next; told as it was."""
    from pot.recording.transcript import batch_digest

    found = records(world.honest)
    by_label = sorted(range(RECORDS), key=lambda number: found[number]["label"])
    order = [[by_label[(step * BATCH + at) % RECORDS] for at in range(BATCH)] for step in range(60)]
    run = world.train(with_batches(lambda number, _: [found[at] for at in order[number - 1]]))
    events = run.events()
    for event in events:
        if event["type"] == "step":
            event["batch_blake3"] = batch_digest(order[int(event["step"]) - 1])
    run.relink(events)
    return told(run, [batch_of([found[at] for at in numbers]) for numbers in order])


def undeclared_steps(world: World) -> Forgery:
    def change(update: Callable[..., None], step: int, _: Any, rest: dict[str, Any]) -> None:
        update()
        if step % 3 == 0:
            update()
            count_back(rest)

    return told(world.train(with_adam(change)))


def skipping(part: float) -> Callable[[World], Forgery]:
    """A part of the updates does not happen; the counters say that they did."""

    def forge(world: World) -> Forgery:
        rng = random.Random(world.seed)
        left_out = set(rng.sample(range(2, 61), round(part * 60)))

        def change(update: Callable[..., None], step: int, _: Any, rest: dict[str, Any]) -> None:
            if step in left_out:
                count_back(rest, -1)
            else:
                update()

        return told(world.train(with_adam(change)))

    return forge


def _poisoned(world: World) -> Change:
    rng = random.Random(world.seed)
    bad = set(rng.sample([item["image"] for item in records(world.honest)], RECORDS // 5))
    return lambda _, items: [
        {**item, "label": (item["label"] + 1) % 10} if item["image"] in bad else item for item in items
    ]


def other_data(world: World) -> Forgery:
    return told(world.train(with_batches(_poisoned(world))))


def one_long_segment(world: World) -> Forgery:
    return told(world.train(with_batches(_poisoned(world)), every=60))


def used_again(world: World) -> Forgery:
    """One record in the place of one of every batch; a verifier of proofs of learning is told."""
    found = records(world.honest)
    run = world.train(with_batches(lambda _, items: [found[7], *items[1:]]))
    return told(run, [batch_of([found[at] for at in [7, *numbers[1:]]]) for numbers in run.order()])


def near_records(world: World) -> Forgery:
    """One record of every batch exchanged for the one that looks most like it."""
    found = records(world.honest)
    images, labels = batch_of(found)
    gaps = ((images[:, None] - images[None]) ** 2).sum(2)
    gaps[labels[:, None] != labels[None]] = np.inf
    np.fill_diagonal(gaps, np.inf)
    nearest = {item["image"]: found[int(at)] for item, at in zip(found, gaps.argmin(1), strict=True)}
    return told(world.train(with_batches(lambda _, items: [nearest[items[0]["image"]], *items[1:]])))


def drift(world: World) -> Forgery:
    """At the end of every segment a hundred-thousandth in one direction."""

    def change(update: Callable[..., None], step: int, params: Sequence[Any], _: Any) -> None:
        import torch

        update()
        if step % 5 == 0:
            with torch.no_grad():
                for at, parameter in enumerate(params):
                    signs = np.random.default_rng([world.seed, at]).choice([-1, 1], tuple(parameter.shape))
                    parameter += torch.from_numpy(1e-5 * signs).float()

    return told(world.train(with_adam(change)))


def more_at_the_end(world: World) -> Forgery:
    def change(update: Callable[..., None], step: int, _: Any, rest: dict[str, Any]) -> None:
        update()
        if step == 60:
            for _again in range(5):
                update()
            count_back(rest, 5)

    return told(world.train(with_adam(change)))


def rows_edited(world: World) -> Forgery:
    run = world.copy()
    step = steps_of(run)[MIDDLE]
    state = states(run)[step]
    rows = state.model["0.weight"][:3]
    rows += np.random.default_rng(world.seed).normal(0, 1e-3, rows.shape).astype(np.float32)
    rewrite(run, {step: state})
    return told(run)


def backwards(world: World) -> Forgery:
    """The run told from its end, with a negative rate in the optimizer's state."""
    run = world.copy()
    forge_reversed(run)
    found = states(run)
    for state in found.values():
        state.set_rate(-RATE)
    rewrite(run, found)
    return told(run, learning_of(run).batches[::-1])


def permuted(world: World) -> Forgery:
    """Two neighbouring checkpoints exchanged."""
    run = world.copy()
    learning = learning_of(run)
    events = run.events()
    places = [at for at, event in enumerate(events) if event["type"] == "checkpoint"]
    one, other = places[MIDDLE], places[MIDDLE + 1]
    events[one], events[other] = events[other], events[one]
    run.restate(events)
    given = list(learning.checkpoints)
    given[MIDDLE], given[MIDDLE + 1] = given[MIDDLE + 1], given[MIDDLE]
    return Forgery(run, run.issued, replace(learning, checkpoints=given))


def other_schedule(world: World) -> Forgery:
    """Three times the rate in the second half; the optimizer's groups name the committed one."""

    def change(update: Callable[..., None], step: int, _: Any, __: Any) -> None:
        update(3.0 if step > 30 else 1.0)

    return told(world.train(with_adam(change)))


def donor_moments(world: World) -> Forgery:
    run = world.copy()
    forge_donor_moments(run, world.donor, at=MIDDLE)
    return told(run)


def other_generators(world: World) -> Forgery:
    """Dropout drawn from a generator that was seeded once more on the way."""

    def change(number: int, items: Items) -> Items:
        import torch

        if number == 33:
            torch.manual_seed(world.seed)
        return items

    return told(world.train(with_batches(change)))


def other_preprocessing(world: World) -> Forgery:
    """What the program makes of a record is exchanged after the records were committed."""

    def change(_: int, items: Items) -> Items:
        return [{**item, "image": bytes(16 - byte for byte in bytes.fromhex(item["image"])).hex()} for item in items]

    return told(world.train(with_batches(change)))


@dataclass(frozen=True)
class Attack:
    """A row of the table."""

    id: str
    name: str
    forge: Callable[[World], Forgery]

    @property
    def honest(self) -> bool:
        return self.id == "-"

    @property
    def label(self) -> str:
        return self.name if self.honest else f"{self.id} {self.name}"


ATTACKS: Final = (
    Attack("-", "no forgery", honest),
    Attack("A01", "line of 80 checkpoints to random weights, rate 1e-9", line),
    Attack("A01", "line to a stolen model, noise, fitting moments", noisy_line),
    Attack("A02", "rate hidden in the optimizer's state", hidden_rate),
    Attack("A03", "five largest updates honest, lines between", largest),
    Attack("A04", "one jump to a stolen model", jump),
    Attack("A05", "inputs optimised for a stolen model", steered_inputs),
    Attack("A06", "pretrained weights sorted as an initialisation", sorted_weights),
    Attack("A07", "the luckiest of several seeds", lucky_seed),
    Attack("A08", "pre-commitment that explains the order afterwards", order_found_afterwards),
    Attack("A09", "harmful order of the committed records", harmful_order),
    Attack("A10", "undeclared updates, one in three steps", undeclared_steps),
    Attack("A11", "5 % of the batches skipped", skipping(0.05)),
    Attack("A11", "20 % of the batches skipped", skipping(0.2)),
    Attack("A11", "50 % of the batches skipped", skipping(0.5)),
    Attack("A12", "a fifth of the labels not the committed ones", other_data),
    Attack("A13", "one record used in every batch", used_again),
    Attack("A14", "a record of every batch swapped for its likest", near_records),
    Attack("A15", "drift of 1e-5 a segment", drift),
    Attack("A16", "five more updates after the last step", more_at_the_end),
    Attack("A17", "three rows edited at a boundary", rows_edited),
    Attack("A18", "told backwards, negative rate", backwards),
    Attack("A19", "two checkpoints exchanged", permuted),
    Attack("A20", "three times the rate, half of the run", other_schedule),
    Attack("A21", "moments of another run at one checkpoint", donor_moments),
    Attack("A22", "random generators seeded anew on the way", other_generators),
    Attack("A25", "preprocessing exchanged after the commitment", other_preprocessing),
    Attack("A61", "one segment as long as the run, other data", one_long_segment),
)
