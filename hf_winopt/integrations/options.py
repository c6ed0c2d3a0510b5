"""What an optimizer is made with: Trainer's arguments, `optim_args` and `WinOptArguments` together."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import Parameter
from typing import Any, NamedTuple

import torch

from hf_winopt.integrations import names, parsing
from hf_winopt.integrations.names import Entry
from hf_winopt.integrations.typed import typed_options
from hf_winopt.optim import registry
from hf_winopt.optim.options import OF_TORCH

logger = logging.getLogger(__name__)

# Trainer writes the weight decay into the parameter groups, and its schedule the learning rate: given as
# options, both would be overruled without a word.
_OF_TRAINER = {"lr": "learning_rate", "weight_decay": "weight_decay"}
_ADAM = {"betas": ("adam_beta1", "adam_beta2"), "eps": ("adam_epsilon",)}
# Options without effect while a switch is off: option -> (switch, off).
_NEEDS = {
    "reckless_steps": ("acceleration", "none"),
    "agr_steps": ("agr", False),
    "agr_stop_ratio": ("agr", False),
}
# Known here alone: the optimizer takes agr_steps, which come of it when training begins.
_STOP_RATIO = Parameter("agr_stop_ratio", Parameter.KEYWORD_ONLY, annotation=float, default=None)


class _Claim(NamedTuple):
    """Someone says what an option shall be."""

    option: str
    value: Any
    source: str


def optimizer_kwargs(entry: Entry, args: Any) -> dict[str, Any]:
    """The keyword arguments with which these `TrainingArguments` make the optimizer of `entry`.

    `learning_rate` and `weight_decay` always count. `adam_beta1`, `adam_beta2` and `adam_epsilon` count where
    they differ from Trainer's own defaults; untouched, they leave the optimizer's (LAMB's eps is 1e-6, not
    1e-8). They do not reach an optimizer whose betas are no pair: Adan has three. `optim_args` and the fields
    of `WinOptArguments` set whatever else the optimizer's signature names.

    Raises:
        ValueError: an option is unknown, of the wrong type, claimed with two values, or
            against what the name fixes.
    """
    accepted, _ = _accepted(entry)
    said = list(_from_user(entry, args))
    agreed = _agree([*_from_name(entry), *_from_adam(entry, args), *said])
    kwargs = {**entry.defaults, "lr": args.learning_rate, **agreed}
    if "weight_decay" in accepted:
        kwargs["weight_decay"] = args.weight_decay
    for claim in said:
        _warn_of_idle(claim, entry, accepted, kwargs)
    if kwargs.pop(_STOP_RATIO.name, None) is not None and "agr_steps" in agreed:
        raise ValueError("agr_stop_ratio and agr_steps say the same thing: give one of them")
    return kwargs


def agr_stop_ratio(entry: Entry, args: Any) -> float | None:
    """The share of all steps after which AGR stops; None if it was not given."""
    return _agree(_from_user(entry, args)).get(_STOP_RATIO.name)


def check(args: Any) -> None:
    """Refuse the options that the optimizer of `args.optim` would refuse; see `optimizer_kwargs`."""
    entry = names.lookup(args.optim)
    if entry is None:
        return
    kwargs = optimizer_kwargs(entry, args)
    if any(entry.factory is row.cls for row in registry.OPTIMIZERS.values()):
        entry.factory(
            [torch.zeros(1, device="cpu")], **kwargs
        )  # ours check their values and do nothing else before a step


def _accepted(entry: Entry) -> tuple[dict[str, Parameter], bool]:
    """The options that the factory names, and whether it takes any other."""
    _, *rest = names.signature(entry.factory).parameters.values()
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in rest)
    accepted = {parameter.name: parameter for parameter in rest if parameter.kind is not Parameter.VAR_KEYWORD}
    accepted.pop("model", None)
    if "agr_steps" in accepted:
        accepted[_STOP_RATIO.name] = _STOP_RATIO
    return accepted, takes_any


def _agree(claims: Iterable[_Claim]) -> dict[str, Any]:
    """option -> value, if all who claim an option claim the same value."""
    first: dict[str, _Claim] = {}
    for claim in claims:
        before = first.setdefault(claim.option, claim)
        if before.value != claim.value:
            one, other = (f"{it.value!r} ({it.source})" for it in (before, claim))
            raise ValueError(f"{claim.option} cannot be both {one} and {other}")
    return {option: claim.value for option, claim in first.items()}


def _from_name(entry: Entry) -> Iterator[_Claim]:
    for option, value in entry.fixed.items():
        yield _Claim(option, value, f"the name {entry.name}")


def _from_adam(entry: Entry, args: Any) -> Iterator[_Claim]:
    from transformers.training_args import TrainingArguments

    accepted, _ = _accepted(entry)
    for option, sources in _ADAM.items():
        if option not in accepted:
            continue
        given = tuple(getattr(args, source) for source in sources)
        untouched = tuple(TrainingArguments.__dataclass_fields__[source].default for source in sources)
        own = entry.defaults.get(option, accepted[option].default)
        if given == untouched and own is not Parameter.empty:
            continue
        if own in (Parameter.empty, None):
            own = untouched
        owns = own if isinstance(own, (tuple, list)) else (own,)
        if len(owns) != len(sources):
            example = f"{option}={':'.join(map(str, owns))}"
            logger.warning(
                f"{' and '.join(sources)} do not reach {entry.name}, whose {option} are {own}; "
                f'those are set by optim_args="{example}"'
            )
            continue
        pairs = zip(given, untouched, owns, strict=True)
        values = tuple(mine if value == theirs else value for value, theirs, mine in pairs)
        yield _Claim(option, values if len(values) > 1 else values[0], " and ".join(sources))


def _from_user(entry: Entry, args: Any) -> Iterator[_Claim]:
    accepted, takes_any = _accepted(entry)
    for option, value, source, convert in _said(args):
        if option not in accepted and not takes_any:
            raise ValueError(f"{source}: {entry.name} has no option {option}{_known(option, accepted)}")
        if option in _OF_TRAINER:
            raise ValueError(f"{source}: {option} is what Trainer's own argument {_OF_TRAINER[option]} sets")
        try:
            value = convert(value, accepted.get(option, Parameter(option, Parameter.KEYWORD_ONLY)))
        except ValueError as error:
            raise ValueError(f"{option} of {entry.name}, by {source}: {error}") from None
        if option == _STOP_RATIO.name and not 0 < value <= 1:
            raise ValueError(f"{option} must be above 0 and at most 1, not {value}")
        yield _Claim(option, value, source)


def _said(args: Any) -> Iterator[tuple[str, Any, str, Callable[[Any, Parameter], Any]]]:
    """(option, value, source, conversion) of everything that a user has said."""
    convert = parsing.from_text if isinstance(args.optim_args, str) else parsing.from_value
    for option, value in parsing.pieces(args.optim_args):
        yield option, value, "optim_args", convert
    for source, (option, value) in typed_options(args).items():
        yield option, value, source, parsing.from_value


def _known(option: str, accepted: Mapping[str, Parameter]) -> str:
    known = sorted(accepted.keys() - _OF_TRAINER.keys() - set(OF_TORCH))
    near = difflib.get_close_matches(option, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"{hint} It takes: {', '.join(known) or 'none'}"


def _warn_of_idle(claim: _Claim, entry: Entry, accepted: Mapping[str, Parameter], kwargs: dict[str, Any]) -> None:
    switch, off = _NEEDS.get(claim.option, ("", None))
    if switch in accepted and kwargs.get(switch, accepted[switch].default) == off:
        kwargs.pop(claim.option, None)
        said = claim.option if claim.source == claim.option else f"{claim.option} ({claim.source})"
        logger.warning(f"{said} has no effect on {entry.name}, where {switch} is {off!r}")
