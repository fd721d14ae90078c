"""Challenges: which segments (or steps) an auditor re-executes, and what that many show, in exact arithmetic.

Spec: `specs/transcript.md`, "Challenge". The chosen units are the first `sample` of a keyed permutation; the key binds
the transcript and a nonce. With a verifier's nonce the prover could not know the choice; with the prover's own, or a
beacon round that it may pick, it could try again until the choice suits it, so the source is named and weighed.

Shows: the choice follows from transcript and nonce; with what probability a forged fraction would have been met.
Does not show: who chose the nonce, nor when; a signature and a log do.
"""

from __future__ import annotations

import secrets
from fractions import Fraction
from math import ceil, prod
from typing import Any, Final, Literal, Self

from pydantic import model_validator

from pot.audit.challenges.beacon import ChainInfo, chain_known_as, verify_round
from pot.canonical import Count, Decimal, Document, Hex32, derive
from pot.commitments.order import Permutation
from pot.errors import Malformed, Refused, UsageError
from pot.recording.precommit import BeaconRound

__all__ = ["MAX_POPULATION", "MAX_SAMPLE", "Challenge", "NonceSource", "Unit", "check_challenge", "check_draw",
           "choose", "detection", "detection_after_grinding", "forged_count", "fraction", "new_challenge",
           "prover_nonce", "sample_size"]  # fmt: skip

MAX_POPULATION: Final = 10_000_000  # exact products beyond it take minutes
MAX_SAMPLE: Final = 100_000  # chosen units are listed one by one

_PRECISION: Final = 512  # bits that powers are rounded down to: far below any probability that is printed
Unit = Literal["segment", "step"]
NonceSource = Literal["verifier", "prover", "beacon"]


class Challenge(Document):
    """`pot/challenge/v1`. `chosen` is recomputed by everyone who reads it; it is there to be read by people."""

    version: Literal["pot/challenge/v1"]
    precommit_sha256: Hex32
    transcript_sha256: Hex32
    unit: Unit
    population: Count
    sample: Count
    nonce: Hex32
    nonce_source: NonceSource
    beacon: BeaconRound | None = None
    forged: Decimal
    detect: Decimal
    chosen: tuple[Count, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        population, sample = int(self.population), int(self.sample)
        if not 1 <= population <= MAX_POPULATION:
            raise ValueError(f"population must be 1 to {MAX_POPULATION}")
        if not 1 <= sample <= min(population, MAX_SAMPLE):
            raise ValueError(f"sample must be 1 to the population and at most {MAX_SAMPLE}")
        if len(self.chosen) != sample:
            raise ValueError(f"chosen lists {len(self.chosen)} units, sample says {sample}")
        if (self.nonce_source == "beacon") != (self.beacon is not None):
            raise ValueError("beacon must be there exactly if nonce_source is beacon")
        if self.beacon is not None and self.nonce != self.beacon.randomness:
            raise ValueError("nonce is not the SHA-256 of the beacon's signature")
        return self


def fraction(text: str, name: str) -> Fraction:
    """Read a decimal string such as "0.01" exactly; it must lie in (0, 1]. Raises `UsageError`."""
    try:
        value = Fraction(text) if len(text) <= 32 and "/" not in text and "_" not in text else None
    except (ValueError, ZeroDivisionError):
        value = None
    if value is None or not 0 < value <= 1:
        raise UsageError(f"{name}: {text[:32]!r} is not a decimal number above 0 and at most 1, such as 0.01")
    return value


def forged_count(population: int, forged: Fraction) -> int:
    """The smallest number of units that is at least the fraction `forged` of the population."""
    return ceil(forged * population)


def detection(population: int, forged_count: int, sample: int) -> Fraction:
    """The probability that `sample` of `population` units, drawn without replacement, meet one of `forged_count`.

    Exact (hypergeometric): 1 - C(N - f, k) / C(N, k). Raises `UsageError` outside 0 <= f, k <= N <= `MAX_POPULATION`.
    """
    if not 0 < population <= MAX_POPULATION or not 0 <= forged_count <= population or not 0 <= sample <= population:
        raise UsageError(
            f"detection: {forged_count} forged and {sample} sampled of {population} units are not possible"
            f" (at most {MAX_POPULATION} units)"
        )
    return 1 - Fraction(*_miss(population, forged_count, sample))


def _miss(population: int, forged: int, sample: int) -> tuple[int, int]:
    """Numerator and denominator of the probability of meeting none; symmetric in forged and sample."""
    few, many = sorted((forged, sample))
    return prod(range(population - many - few + 1, population - many + 1)), prod(
        range(population - few + 1, population + 1)
    )


def detection_after_grinding(population: int, forged_count: int, sample: int, tries: int) -> Fraction:
    """The probability that a draw meets a forged unit where the prover may draw `tries` times and show the best.

    It is met only if every one of the independent draws meets one: p^tries, p = `detection(...)`. Rounded down to a
    multiple of 2^-512, so that nothing is shown stronger than it is. Raises `UsageError`, also for `tries` < 1.
    """
    if tries < 1:
        raise UsageError(f"detection: {tries} tries; at least one is made")
    once = detection(population, forged_count, sample)
    power, result = once.numerator * (1 << _PRECISION) // once.denominator, 1 << _PRECISION
    while tries and result:
        if tries & 1:
            result = result * power >> _PRECISION
        power = power * power >> _PRECISION
        tries >>= 1
    return Fraction(result, 1 << _PRECISION)


def sample_size(population: int, forged: str, detect: str) -> int:
    """The fewest units to replay so that, if the fraction `forged` is forged, one is met with probability `detect`.

    Both are decimal strings, read exactly. Raises `UsageError`.
    """
    bad = forged_count(population, fraction(forged, "forged"))
    wanted = fraction(detect, "detect")
    detection(population, bad, 0)  # the population's limits
    low, high = 1, population - bad + 1  # that many cannot miss
    while low < high:
        middle = (low + high) // 2
        miss, total = _miss(population, bad, middle)
        if (total - miss) * wanted.denominator >= wanted.numerator * total:
            high = middle
        else:
            low = middle + 1
    return low


def choose(transcript_sha256: str, unit: Unit, nonce: str, population: int, sample: int) -> tuple[str, ...]:
    """The chosen units, from 1, ascending: the first `sample` of a permutation keyed by transcript, unit and nonce."""
    key = derive("pot/challenge/v1", bytes.fromhex(transcript_sha256), unit.encode(), bytes.fromhex(nonce))
    return tuple(str(at + 1) for at in sorted(Permutation(key, population).slice(0, sample)))


def prover_nonce(transcript_sha256: str) -> str:
    """The only nonce that a challenge of source "prover" may have: derived from the transcript, not chosen freely."""
    return derive("pot/challenge-nonce/v1", bytes.fromhex(transcript_sha256)).hex()


def new_challenge(
    precommit_sha256: str,
    transcript_sha256: str,
    population: int,
    *,
    unit: Unit = "segment",
    forged: str = "0.01",
    detect: str = "0.99",
    nonce: str | None = None,
    nonce_source: NonceSource = "verifier",
    beacon: BeaconRound | None = None,
) -> Challenge:
    """A challenge to a finished run of `population` units. `nonce`: 64 hex digits; by default 32 fresh random bytes.

    `beacon`: the round that gives the nonce, for the source "beacon"; its signature is not checked here. Raises
    `UsageError` for fractions outside (0, 1], an impossible population, or a sample above `MAX_SAMPLE`.
    """
    if (nonce_source == "beacon") != (beacon is not None):
        raise UsageError("challenge: a beacon's round is needed for the nonce source beacon, and only for it")
    if nonce_source != "verifier" and nonce is not None:
        follows = "follows from the transcript" if nonce_source == "prover" else "is the round's randomness"
        raise UsageError(f"challenge: a {nonce_source}-derived nonce {follows} and cannot be given")
    if nonce_source == "prover":
        nonce = prover_nonce(transcript_sha256)
    if beacon is not None:
        nonce = beacon.randomness
    sample = sample_size(population, forged, detect)
    if sample > MAX_SAMPLE:
        raise UsageError(f"challenge: {sample} units would have to be replayed, more than {MAX_SAMPLE}; ask for less")
    value: dict[str, Any] = {
        "version": "pot/challenge/v1",
        "precommit_sha256": precommit_sha256,
        "transcript_sha256": transcript_sha256,
        "unit": unit,
        "population": str(population),
        "sample": str(sample),
        "nonce": nonce if nonce is not None else secrets.token_hex(32),
        "nonce_source": nonce_source,
        "forged": forged,
        "detect": detect,
        "chosen": [],
    }
    if beacon is not None:
        value["beacon"] = beacon.model_dump(mode="json")
    Challenge.from_value(
        {**value, "chosen": ["1"] * sample}, what="challenge"
    )  # digests and nonce before they are used
    chosen = choose(transcript_sha256, unit, str(value["nonce"]), population, sample)
    return Challenge.from_value({**value, "chosen": list(chosen)}, what="challenge")


def check_challenge(
    challenge: Challenge,
    precommit_sha256: str,
    transcript_sha256: str,
    segments: int,
    steps: int,
    chain: ChainInfo | None = None,
) -> None:
    """`check_draw`, and the signature of a beacon's round: of quicknet, or of `chain`, which the caller trusts.

    Raises `Refused`, `Malformed`, `MissingExtra` (a beacon's round without the extra [beacon]).
    """
    check_draw(challenge, precommit_sha256, transcript_sha256, segments, steps)
    if challenge.beacon is not None:
        known = chain_known_as(challenge.beacon.chain, chain)
        if known is None:
            raise Refused(f"challenge: its beacon's chain {challenge.beacon.chain} is not one that was given here")
        verify_round(challenge.beacon, known)


def check_draw(challenge: Challenge, precommit_sha256: str, transcript_sha256: str, segments: int, steps: int) -> None:
    """Refuse a challenge that is not this run's, or whose size or choice does not follow from its own fields.

    `segments`, `steps`: how many the checked transcript has. A beacon's signature is not checked. Raises `Refused`,
    `Malformed`.
    """
    expected = {"precommit_sha256": precommit_sha256, "transcript_sha256": transcript_sha256}
    for name, value in expected.items():
        if getattr(challenge, name) != value:
            raise Refused(f"challenge: {name} is {getattr(challenge, name)}, this run's is {value}")
    population = segments if challenge.unit == "segment" else steps
    if int(challenge.population) != population:
        raise Refused(
            f"challenge: population {challenge.population}, the transcript has {population} {challenge.unit}s"
        )
    try:
        needed = sample_size(population, challenge.forged, challenge.detect)
    except UsageError as error:
        raise Malformed(f"challenge: {error}") from None
    if int(challenge.sample) < needed:
        raise Refused(f"challenge: {challenge.sample} units sampled, its own fractions need {needed}")
    if challenge.nonce_source == "prover" and challenge.nonce != prover_nonce(transcript_sha256):
        raise Refused("challenge: a prover-derived nonce must be the one derived from the transcript")
    chosen = choose(transcript_sha256, challenge.unit, challenge.nonce, population, int(challenge.sample))
    if challenge.chosen != chosen:
        raise Refused(f"challenge: the chosen units do not follow from the nonce; expected {', '.join(chosen[:8])} ...")
