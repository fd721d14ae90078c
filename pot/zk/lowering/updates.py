"""Updates in integers: the next value of a parameter, and of what its optimizer keeps for it.

Implements `specs/step-proof.md`, section "Updates". Plain SGD needs no rounding: learning rate, batch size and the bits
of the gradient's factors fit the weights' grid. Momentum costs one rounding for every parameter, weight decay another,
Adam five. A rate must be a small integer over a power of two, the loss's own factor included; the nearest is named.

Shows: what an update is. Does not show: that it learns as well as the float optimizer (the drift is measured).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from pot.errors import UsageError
from pot.zk.lowering.optimizers import POWERS, Adam, Settings, Sgd
from pot.zk.lowering.values import Arithmetic, Value, dyadic, fraction
from pot.zk.semantics.program import REFERENCE_BITS

__all__ = ["Pressure", "Updates"]

RATE_BITS: Final = 5
"""A rate that is not exactly a multiple of a power of two becomes the nearest with a factor below 2^5."""
EXACT_RATE_BITS: Final = 12
DECAY_BITS: Final = 8
SLOT_LIMBS: Final = 2
POWER_BITS: Final = 24  # or what two limbs hold
ROOT_BITS: Final = 40
SQUARE_SPARE: Final = 5  # bits of Adam's gradient left out, so that its square meets its average without a rounding


@dataclass(frozen=True)
class Pressure:
    """An update that has `excess` bits more than the weights' grid."""

    name: str
    size: int
    excess: int
    roundings: frozenset[int]


@dataclass
class Updates:
    """Writes the update of every parameter into a sketch."""

    a: Arithmetic
    weight_bits: int
    nearest_rate: bool = False
    rounded: Sequence[str] = ()
    """Parameters whose update may be rounded: their gradient has too few bits to lose."""
    slack: int = 0
    pressures: list[Pressure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def write(self, settings: Settings, name: str, weight: int, gradient: Value) -> None:
        """The next value of one parameter, and of what its optimizer keeps for it."""
        if self.a.sketch.shape(gradient.at) != self.a.sketch.shape(weight):
            gradient = self.a.moved(gradient, lambda at: self.a.sketch.expand(at, self.a.sketch.shape(weight)))
        if isinstance(settings, Adam):
            self._adam(settings, name, weight, gradient)
        else:
            self._sgd(settings, name, weight, gradient)

    def _sgd(self, settings: Sgd, name: str, weight: int, gradient: Value) -> None:
        if settings.momentum:
            gradient = self._momentum(settings, name, weight, gradient)
        step = self._rated(settings.lr, name, gradient)
        if settings.weight_decay and not settings.momentum:
            step = self.a.sketch.add(step, self._decay(settings.lr * settings.weight_decay, name, weight))
        self._finish(name, weight, step)

    def _momentum(self, settings: Sgd, name: str, weight: int, gradient: Value) -> Value:
        """v = mu v + g + decay w, rounded to the buffer's grid."""
        s = self.a.sketch
        slot = f"{name}.momentum_buffer"
        largest = s.peak(gradient.at) * abs(float(gradient.scale)) / (1 - settings.momentum)
        bits = min(s.best_bits(largest, limbs=SLOT_LIMBS), self.weight_bits)
        bits = min(bits, self.weight_bits - max(0, self._rate(settings.lr, name, Fraction(1))[1]))
        buffer = s.state(slot, s.shape(weight), bits=bits, width=SLOT_LIMBS * s.limb_bits - 1)
        total = s.add(self._times(settings.momentum, f"{name}: momentum", buffer), self.a.number(gradient))
        if settings.weight_decay:
            total = s.add(total, self._decay(settings.weight_decay, name, weight))
        after = s.round(total, bits, limbs=SLOT_LIMBS)
        s.set_next(buffer, after, slack=self.slack)
        return Value(after)

    def _adam(self, settings: Adam, name: str, weight: int, gradient: Value) -> None:
        a, s = self.a, self.a.sketch
        raw = a.number(gradient)
        if settings.weight_decay and not settings.decoupled:
            raw = s.add(raw, self._decay(settings.weight_decay, name, weight))
        slope = s.chosen(raw, s.best_bits(s.peak(raw), limbs=SLOT_LIMBS) - SQUARE_SPARE, limbs=SLOT_LIMBS)
        first = self._average(f"{name}.exp_avg", settings.betas[0], slope, limbs=2)
        second = self._average(f"{name}.exp_avg_sq", settings.betas[1], s.mul(slope, slope), limbs=3)
        root = s.sqrt(second, limbs=2)
        least = max(1, round(settings.eps * 2.0 ** s.bits(root)))
        if abs(least * 2.0 ** -s.bits(root) - settings.eps) > settings.eps / 64:
            self._note(f"{name}: eps {settings.eps:g} became {least * 2.0 ** -s.bits(root):.3g}")
        root = s.add(root, s.constant([least], s.shape(root), bits=s.bits(root)))
        scale = self._correction(settings.betas)
        quotient = s.mul(first, scale)
        ratio = s.ratio(quotient, root, s.best_bits(4.0))
        step = self._rated(settings.lr, name, Value(ratio))
        if settings.weight_decay and settings.decoupled:
            step = s.add(step, self._decay(settings.lr * settings.weight_decay, name, weight))
        self._finish(name, weight, step)

    def _average(self, slot: str, beta: float, item: int, *, limbs: int) -> int:
        """beta * average + (1 - beta) * item; 1 - beta is a small integer over a power of two."""
        s = self.a.sketch
        m, k = dyadic(fraction(1 - beta), RATE_BITS + 1)
        if abs(m * 2.0**-k - (1 - beta)) > 1e-6 * (1 - beta):
            self._note(f"beta {beta:g} became {1 - m * 2.0**-k:.6g}")
        room = REFERENCE_BITS - 2 - (s.limit[item] * m).bit_length()  # for both terms on one grid
        bits = min(s.best_bits(s.peak(item), limbs=limbs), s.bits(item) + room)  # it grows to what it averages
        bits -= bits % 2  # a root needs an even number
        if s.bits(item) - bits > (spare := REFERENCE_BITS - 3 - limbs * s.limb_bits - k):
            item = s.round(item, bits + spare, limbs=limbs)
        average = s.state(slot, s.shape(item), bits=bits, width=limbs * s.limb_bits - 1)
        kept, new = s.times(average, (1 << k) - m), s.times(item, m)
        after = s.round(s.scaled(s.add(kept, new), k), bits, limbs=limbs)
        s.set_next(average, after, slack=self.slack)
        return after

    def _correction(self, betas: tuple[float, float]) -> int:
        """sqrt(1 - beta2^t) / (1 - beta1^t), one number, from the powers that the state keeps."""
        s = self.a.sketch
        left = []
        grid = min(POWER_BITS, SLOT_LIMBS * s.limb_bits - 2)
        for power, beta in zip(POWERS, betas, strict=True):
            known = [at for at, node in enumerate(s.nodes) if node.op == "state" and node.name == power]
            before = s.state(power, [1], bits=grid, width=grid + 1)
            m, k = dyadic(fraction(1 - beta), RATE_BITS + 1)
            after = s.round(s.scaled(s.times(before, (1 << k) - m), k), grid, limbs=SLOT_LIMBS)
            if not known:
                s.set_next(before, after)
            left.append(s.sub(s.constant([1], [1], bits=0), after))
        root = s.sqrt(s.shift(left[1], ROOT_BITS - grid), limbs=SLOT_LIMBS)
        return s.ratio(root, left[0], s.limb_bits - 2)

    def _times(self, factor: float, what: str, at: int) -> int:
        m, k = dyadic(fraction(factor), 16)
        if abs(m * 2.0**-k - factor) > 1e-9:
            self._note(f"{what} {factor:g} became {m} / 2^{k} = {m * 2.0**-k:.7g}")
        return self.a.sketch.scaled(self.a.sketch.times(at, m), k)

    def _decay(self, factor: float, name: str, weight: int) -> int:
        """factor * weight, with as fine a factor as 62 bits leave room for."""
        s = self.a.sketch
        bits = DECAY_BITS
        room = 60 - s.limit[weight].bit_length()
        while bits > 1 and dyadic(fraction(factor), bits)[1] + 1 > room:
            bits -= 1
        m, k = dyadic(fraction(factor), bits)
        if k > room:
            raise UsageError(
                f"{name}: weight decay {factor:g} is too small for this grid: use 0 or at least {2.0**-room:g}"
            )
        if abs(m * 2.0**-k - factor) > 1e-6 * factor:
            self._note(f"weight decay: factor {factor:g} became {m} / 2^{k} = {m * 2.0**-k:.4g}")
        return s.scaled(s.times(weight, m), k)

    def _rated(self, lr: float, name: str, gradient: Value) -> int:
        m, k = self._rate(lr, name, gradient.scale)
        return self.a.sketch.scaled(self.a.sketch.times(gradient.at, m), k)

    def _rate(self, lr: float, name: str, scale: Fraction) -> tuple[int, int]:
        """Learning rate times the gradient's own factor, as m / 2^k."""
        wanted = fraction(lr) * scale
        if (exact := self._exactly(wanted)) is not None:
            return exact
        near, shift = dyadic(fraction(lr), RATE_BITS)
        if not self.nearest_rate and self._exactly(fraction(lr)) is None:
            raise UsageError(
                f"learning rate {lr:g} is no small multiple of a power of two: use lr={near * 2.0**-shift!r} "
                f"({near}/2^{shift}), or give nearest_rate=True"
            )
        m, k = dyadic(wanted, RATE_BITS)
        self._note(f"{name}: learning rate {lr:g} became {float(Fraction(m) * Fraction(2) ** -k / scale):.6g}")
        return m, k

    def _exactly(self, wanted: Fraction) -> tuple[int, int] | None:
        m, k = dyadic(wanted, EXACT_RATE_BITS)
        return (m, k) if abs(Fraction(m) * Fraction(2) ** -k / wanted - 1) < Fraction(1, 10**6) else None

    def _finish(self, name: str, weight: int, step: int) -> None:
        s = self.a.sketch
        after = s.sub(weight, step)
        excess = s.bits(after) - self.weight_bits
        if excess > 0:
            decays = any(s.nodes[at].op == "times" and s.nodes[at].inputs == [weight] for at in self._path(step))
            roundings = s.hangs_on[step]
            if roundings and name not in self.rounded and not decays:
                self.pressures.append(Pressure(name, s.nodes[weight].size, excess, roundings))
            largest = max(s.peak(after), s.peak(weight)) * 2.0 ** (self.weight_bits + s.margin)
            limbs = next((n for n in (1, 2, 3) if largest <= s.quotients(n)), 3)
            after = s.round(after, self.weight_bits, limbs=limbs)
            self._note(f"{name}: its update is rounded to {self.weight_bits} bits")
        s.set_next(weight, after, slack=self.slack)

    def _path(self, at: int) -> list[int]:
        """The sums and factors just above a node."""
        node = self.a.sketch.nodes[at]
        below = node.inputs if node.op in ("add", "shift", "relabel") else []
        return [at, *(one for item in below for one in self._path(item))]

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
