"""Optimizer names: what each stands for, and how `transformers` comes to accept it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from torch.optim import Optimizer

from hf_winopt.optim import registry
from hf_winopt.optim.composed import COMPOSED

Factory = Callable[..., Optimizer]


@dataclass(frozen=True)
class Entry:
    """A name and the optimizer that it stands for.

    Args:
        name: what is given to `TrainingArguments(optim=...)`.
        factory: an `Optimizer` class or any callable, called as `factory(params, lr=..., **options)`.
        fixed: options that the name itself fixes; they may not be contradicted.
        defaults: options that the name sets and a user may change.
    """

    name: str
    factory: Factory
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def optimizer_class(self, model: Any = None) -> type[Optimizer]:
        """The factory as a class, since Trainer 5 takes anything else for a factory of factories."""
        make = self.factory
        if "model" in signature(make).parameters:
            make = functools.partial(make, model=model)
        if isinstance(make, type):
            return make

        # What __new__ returns is no instance of the class below, so __init__ is not run on it.
        def __new__(cls: type, params: Any, **options: Any) -> Optimizer:
            return make(params, **options)

        return type(self.name, (Optimizer,), {"__new__": __new__, "__doc__": make.__doc__})


_entries = {
    **{row.name: Entry(row.name, row.cls, row.fixed, row.defaults) for row in registry.OPTIMIZERS.values()},
    **{row.name: Entry(row.name, row.make, row.fixed) for row in COMPOSED.values()},
}


def lookup(name: str) -> Entry | None:
    """The entry of a name (a string or a member of `OptimizerNames`); None if it is transformers' own."""
    return _entries.get(getattr(name, "value", name))


def register_optimizer(name: str, factory: Factory, *, exist_ok: bool = False) -> None:
    """Give Trainer an optimizer name.

    After `register_optimizer("sgdw", make_sgdw)`, `TrainingArguments(optim="sgdw")` and `--optim sgdw` are
    accepted and Trainer trains with `make_sgdw(params, lr=args.learning_rate, ...)`. What else the factory
    receives is read from its signature: `weight_decay`, `betas`, `eps` and `model` (the one in training) if
    it names them, and what `--optim_args "key=value,other=1:2"` says, converted by the type hints.

    Args:
        name: the name; no white space.
        factory: an `Optimizer` class, or a function `factory(params, lr=..., **options)` that returns an
            optimizer. `params` are Trainer's parameter groups, which carry the weight decay.
        exist_ok: replace what the name was registered for. Default False; the same factory again is harmless.

    Raises:
        ValueError: the name is transformers' own, is taken by another factory, or is no name.
        TypeError: the factory cannot be called as `factory(params, lr=...)`.
    """
    from transformers.training_args import OptimizerNames

    if not isinstance(name, str):
        raise TypeError(f"register_optimizer takes a name and a factory, in this order; got the name {name!r}")
    if not re.fullmatch(r"\S+", name):
        raise ValueError(f"{name!r} is no optimizer name: it must not be empty or contain white space")
    known = _entries.get(name)
    if known is None and name in OptimizerNames._value2member_map_:
        raise ValueError(f"{name!r} is an optimizer of transformers itself and cannot be registered")
    if known is not None and known.factory == factory:
        return
    if known is not None and not exist_ok:
        raise ValueError(f"{name!r} is already registered for {known.factory!r}; exist_ok=True replaces it")
    try:
        signature(factory).bind_partial([], lr=1e-3)
    except TypeError as error:
        raise TypeError(f"{name!r}: {factory!r} must accept (params, lr=...): {error}") from None
    _entries[name] = Entry(name, factory)
    publish(OptimizerNames)


def publish(names: type[Enum]) -> None:
    """Add every name to `OptimizerNames`; one that transformers has itself stays transformers'."""
    for name in list(_entries):
        member = names._value2member_map_.get(name)
        if member is None:
            add_member(names, name)
        elif not _is_ours(member):
            del _entries[name]
    if names._missing_.__module__ != __name__:
        _suggest_near_names(names)


def signature(factory: Factory) -> inspect.Signature:
    """The factory's signature, its annotations evaluated where they can be."""
    try:
        return inspect.signature(factory, eval_str=True)
    except (NameError, AttributeError, SyntaxError):  # a hint that only type checkers can resolve
        return inspect.signature(factory)


def add_member(names: Any, value: str) -> None:
    """Add a member in place, since everything asks this very enum.

    `HfArgumentParser` reads its choices from it and `TrainingArguments` calls it; an enum with members cannot
    be subclassed, and a second one nobody would look at.
    """
    key = re.sub(r"\W", "_", value).upper()
    while hasattr(names, key):  # "lion" beside LION = "lion_32bit"
        key += "_"
    member = str.__new__(names, value)
    member._name_, member._value_, member.__objclass__ = key, value, names
    # Pickled as the plain string, so that training_args.bin opens where nobody has added the name.
    member.__reduce_ex__ = lambda protocol: (str, (value,))
    type.__setattr__(names, key, member)  # EnumType's own would keep the key for itself
    names._member_names_.append(key)
    names._member_map_[key] = member
    names._value2member_map_[value] = member


def _suggest_near_names(names: Any) -> None:
    """Let the error for an unknown name begin with what was perhaps meant: the list of all is long."""
    theirs = names._missing_.__func__

    def _missing_(cls: Any, value: object) -> Any:
        try:
            return theirs(cls, value)
        except ValueError as error:
            written = str(value).lower().replace("-", "_")
            near = registry.suggestion(written, map(str, cls._value2member_map_))
            raise ValueError(f"unknown optimizer {value!r}{near} {error}") from None

    names._missing_ = classmethod(_missing_)


def _is_ours(member: Enum) -> bool:
    return "__reduce_ex__" in vars(member)
