"""The exact sentence that a claim shows, one for each view; nothing stronger may be read out of a claim.

Spec: `specs/verification.md`, "Sentences"; each view's specification says what its keys are. The views themselves are
not imported: a verdict needs their names only. A view that is not in the table gets a sentence that promises nothing
beyond its name.

Shows: nothing by itself; a claim's sentence holds if the claim passed, as strongly as its level says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "COMPOSITION",
    "EXCLUSIONS",
    "FAMILY_AUTO",
    "INCLUSIONS",
    "PROVENANCE",
    "Proven",
    "exclusion_sentence",
    "inclusion_sentence",
    "step_exclusion_sentence",
    "steps_sentence",
]

EXCLUSIONS: Final[dict[str, str]] = {
    "text/1": "no record of X has the same text as a training record, byte for byte",
    "text-norm/1": "no record of X has the same text as a training record after normalisation",
    "json/1": "no record of X has the same JSON value as a training record",
    "pixels/1": "no record of X has the same image as a training record, pixel for pixel",
    "tokens/1": "no record of X has the same tokens as a training record",
    "file/1": "no file of X has the same bytes as a training file",
    "tiles50/1": "no record of X and no training record have a run of 99 or more bytes of normalised text in common",
    "winnow50/1": "no record of X and no training record have a run of 50 or more bytes of normalised text in common",
    "winnow50-tokens/1": (
        "no run of 50 or more tokens of X is in the training data, also across sequence boundaries within one shard"
    ),
    "minhash/1": "no record of X and no training record are an LSH candidate at the parameters of minhash/1",
}
"""By view: what an exclusion shows of X and the training data."""

INCLUSIONS: Final[dict[str, str]] = {
    "text/1": "the text of every record of Y, byte for byte, is a training record's that was in a batch",
    "text-norm/1": "the text of every record of Y, after normalisation, is a training record's that was in a batch",
    "json/1": "the JSON value of every record of Y is a training record's that was in a batch",
    "pixels/1": "the image of every record of Y, pixel for pixel, is a training record's that was in a batch",
    "tokens/1": "the tokens of every record of Y are a training record's that was in a batch",
    "file/1": "the bytes of every file of Y are a training file's that was in a batch",
}
"""By view: what an inclusion shows. Views with many keys a record are not in the table."""

PROVENANCE: Final = "this run, on its data, code and seed, made these weights"
COMPOSITION: Final = (
    "this run's training data has these records, bytes and tokens for each label, as committed; labels may be false"
)
FAMILY_AUTO: Final = (
    "family auto: each rescale right to one unit in the last place, in either direction, as the prover likes and anew"
    " in every step; run and step are bound by the committed points alone"
)


@dataclass(frozen=True)
class Proven:
    """What is known of the steps that a claim lists: `count` of `population`, and how exactly the circuit says it.

    `tied`: every step of the run, from its first weights to the released ones. `slack`: the largest distance from the
    exact step that the circuit allows, in units of the state's grid; 0 where it is exact.
    """

    count: int
    population: int
    tied: bool = False
    verifier_chosen: bool = False
    slack: int = 0
    auto: bool = False
    """Whether a circuit is of family auto, whose step is no function."""
    trained: tuple[int, int] | None = None
    """How many of the model's tensors the steps train, and how many it has; None where that is not known."""

    @property
    def every(self) -> bool:
        """Whether the claim is about all steps of the run."""
        return 0 < self.count == self.population


def steps_sentence(proven: Proven) -> str:
    """What step proofs show of these steps. Of batches it says no more than that they are behind committed points."""
    if proven.tied and proven.every:
        words = (
            f"every one of the run's {proven.count} steps was proven: from its first weights to the released ones, each"
            " is the circuit's step on the batch behind its committed point"
        ) + _frozen(proven.trained)
    else:
        which = (
            f"every one of the run's {proven.count} steps"
            if proven.every
            else (f"each listed step, {proven.count} of {proven.population or 'an unknown number'},")
        )
        words = f"{which} maps the committed state before to the committed state after, as the circuit says"
        if not proven.every:
            words += f"; {'a verifier' if proven.verifier_chosen else 'nobody but the prover'} chose them"
    return words + _precision(proven)


def step_exclusion_sentence(view: str, proven: Proven, *, unseen: Sequence[str] = (), fields: str | None = None) -> str:
    """What opened batches show under `view`. `unseen`: fields that the steps read beside what the view sees."""
    plain = EXCLUSIONS.get(view, f"no record of X is the same as a training record seen through {view}")
    which = "any step of this run" if proven.every else f"the {proven.count} listed steps of {proven.population}"
    words = plain.replace("a training record", f"a record that {which} read")
    if unseen:
        words += f"; of a record the steps also read {', '.join(unseen)}, which {view} does not see"
    return words + _precision(proven) + _conditions("X", view, fields, False)


def _frozen(trained: tuple[int, int] | None) -> str:
    if trained is None or trained[0] == trained[1]:
        return ""
    return (
        f"; they train {trained[0]} of the model's {trained[1]} tensors, and the others are released as the run began"
        " with them, byte for byte; no step proof shows that the records' fields or the circuit's constants come from"
        " these"
    )


def _precision(proven: Proven) -> str:
    words = ""
    if proven.slack:
        words = (
            f"; each next state lies within {proven.slack} units of its grid of the exact step's (training in floats)"
        )
    return words + (f"; {FAMILY_AUTO}" if proven.auto else "")


def exclusion_sentence(view: str, *, fields: str | None = None, hidden: bool = False) -> str:
    """What an exclusion under `view` shows. `fields`: as what the view saw was called; `hidden`: keyed leaves."""
    sentence = EXCLUSIONS.get(view, f"no record of X is the same as a training record seen through {view}")
    return sentence + _conditions("X", view, fields, hidden)


def inclusion_sentence(view: str, *, fields: str | None = None, hidden: bool = False) -> str:
    """What an inclusion under `view` shows."""
    plain = f"every record of Y, seen through {view}, is the same as a training record that was in a batch"
    return INCLUSIONS.get(view, plain) + _conditions("Y", view, fields, hidden)


def _conditions(name: str, view: str, fields: str | None, hidden: bool) -> str:
    words = "" if fields is None else f"; what {view} saw is the training data's field {fields}"
    return words + (f"; {name}'s root is under the trainer's key" if hidden else "")
