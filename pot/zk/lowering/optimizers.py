"""Optimizers that a step can have: SGD with momentum and weight decay, Adam and AdamW, and what they do in floats.

Implements `specs/step-proof.md`, section "Updates"; `pot.zk.lowering.updates` writes them down in integers.

Shows: nothing by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pot.errors import UsageError

if TYPE_CHECKING:
    import torch


__all__ = [
    "POWERS", "Adam", "Settings", "Sgd", "advance_powers", "first_values", "float_update", "settings_of", "slots",
]  # fmt: skip

LARGEST: Final = 1 << 10  # learning rate and decay stay below
POWERS: Final = ("optimizer.beta1_power", "optimizer.beta2_power")
"""State tensors of one number that hold each beta to the power of the steps taken; they begin at 1."""


@dataclass(frozen=True)
class Sgd:
    """torch.optim.SGD without dampening and Nesterov. Raises `UsageError` for numbers outside their range."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, momentum=self.momentum)


@dataclass(frozen=True)
class Adam:
    """torch.optim.Adam, or AdamW where `decoupled`. Raises like `Sgd`."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, beta1=self.betas[0], beta2=self.betas[1])


def _check(lr: float, decay: float, **shares: float) -> None:
    if not 0 < lr < LARGEST:
        raise UsageError(f"lr is {lr!r:.40}: give a learning rate above 0 and below {LARGEST}")
    if not 0 <= decay < LARGEST:
        raise UsageError(f"weight_decay is {decay!r:.40}: give 0 or more, below {LARGEST}")
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise UsageError(f"{name} is {share!r:.40}: give 0 or more, below 1")


Settings = Sgd | Adam


def settings_of(optimizer: Any, parameters: Mapping[str, torch.Tensor]) -> dict[str, Settings]:
    """Settings for every parameter named, from a torch.optim instance or from `Sgd` or `Adam` for all of them.

    Groups that hold none of them do not count. Raises `UsageError` for an optimizer or a number that has no rule.
    """
    if isinstance(optimizer, (Sgd, Adam)):
        return dict.fromkeys(parameters, optimizer)
    names = {id(value): name for name, value in parameters.items()}
    found: dict[str, Settings] = {}
    for group in getattr(optimizer, "param_groups", ()):
        own = [names[id(one)] for one in group["params"] if id(one) in names]
        if own and group["lr"] == 0:  # its weights stay, but what the optimizer remembers of them moves
            raise UsageError(
                f"{', '.join(own)[:200]}: learning rate 0 changes no weight; leave them out of trainable and of the"
                " optimizer, and they are frozen"
            )
        if own:
            found.update(dict.fromkeys(own, _group(type(optimizer).__name__, group)))
    if missing := [name for name in parameters if name not in found]:
        raise UsageError(f"the optimizer does not hold {', '.join(missing)[:200]}: give it all that is trainable")
    return found


def _group(kind: str, group: Mapping[str, Any]) -> Settings:
    plain: dict[str, dict[str, Any]] = {
        "SGD": {"dampening": 0, "nesterov": False, "maximize": False},
        "Adam": {"amsgrad": False, "maximize": False, "decoupled_weight_decay": False},
        "AdamW": {"amsgrad": False, "maximize": False, "decoupled_weight_decay": True},
    }
    if kind not in plain:
        raise UsageError(f"optimizer {kind} has no rule: use SGD, Adam or AdamW")
    if odd := [name for name, value in plain[kind].items() if group.get(name, value) != value]:
        raise UsageError(f"{kind} with {', '.join(odd)} has no rule: leave it out")
    lr, decay = float(group["lr"]), float(group["weight_decay"])
    if kind == "SGD":
        return Sgd(lr, float(group["momentum"]), decay)
    one, two = (float(beta) for beta in group["betas"])
    return Adam(lr, (one, two), float(group["eps"]), decay, kind == "AdamW")


def float_update(settings: Settings, name: str, values: dict[str, Any], gradient: Any) -> None:
    """The same update in floats, in place, on arrays by the names that a program's state has."""
    weight = values[name]
    if isinstance(settings, Adam) and settings.decoupled:
        weight = weight * (1 - settings.lr * settings.weight_decay)
    else:
        gradient = gradient + settings.weight_decay * weight
    if isinstance(settings, Sgd):
        if settings.momentum:
            gradient = settings.momentum * values[f"{name}.momentum_buffer"] + gradient
            values[f"{name}.momentum_buffer"] = gradient
        values[name] = weight - settings.lr * gradient
        return
    (one, two), first, second = settings.betas, f"{name}.exp_avg", f"{name}.exp_avg_sq"
    values[first] = one * values[first] + (1 - one) * gradient
    values[second] = two * values[second] + (1 - two) * gradient**2
    left = [1 - values[power] * beta for power, beta in zip(POWERS, settings.betas, strict=True)]
    root = values[second] ** 0.5 / left[1] ** 0.5 + settings.eps
    values[name] = weight - settings.lr / left[0] * values[first] / root


def slots(settings: Settings, name: str) -> list[str]:
    """Names of the state that an optimizer keeps for a parameter."""
    if isinstance(settings, Adam):
        return [f"{name}.exp_avg", f"{name}.exp_avg_sq"]
    return [f"{name}.momentum_buffer"] if settings.momentum else []


def first_values(settings: Settings, name: str, zeros: Any, ones: Any) -> dict[str, Any]:
    """What a state begins with besides the weights."""
    found = {slot: zeros.copy() for slot in slots(settings, name)}
    return found | (dict.fromkeys(POWERS, ones) if isinstance(settings, Adam) else {})


def advance_powers(settings: Mapping[str, Settings], values: dict[str, Any]) -> None:
    """After all parameters of a step in floats: the powers of Adam's betas."""
    for item in settings.values():
        if isinstance(item, Adam):
            for power, beta in zip(POWERS, item.betas, strict=True):
                values[power] = values[power] * beta
            return
