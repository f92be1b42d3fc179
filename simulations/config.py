"""The run config: how it is read and checked, and what follows from it for each part of a run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from split_unlearning.clients.base import load_client
from split_unlearning.foundations.errors import IgnoredError, UserError, refuse
from split_unlearning.foundations.options import (
    Option,
    Options,
    Value,
    defaults_of,
    merged,
    read_options,
)
from split_unlearning.models.split import CutModel, architecture
from split_unlearning.models.training import TrainingSettings
from split_unlearning.simulations.data.backdoor import Backdoor
from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS
from split_unlearning.simulations.data.selection import Selection
from split_unlearning.simulations.data.tokenizer import Tokens
from split_unlearning.simulations.keys import (
    Keys,
    declared,
    general,
    of_distributions,
    of_protocol,
    owned,
    readers,
)
from split_unlearning.simulations.session.audit import check_audited, check_given_away
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.registry import carrying_out
from split_unlearning.unlearning.asking import Asking, asking
from split_unlearning.unlearning.methods import METHODS, UnlearningMethod
from split_unlearning.unlearning.request import Request, RequestSettings


@dataclass(frozen=True, kw_only=True)
class RunConfig(Keys):
    """What a run was asked to do, read and checked, and what follows from it."""

    own: Options = field(default_factory=lambda: _owned(defaults_of(declared())))
    """The values of the keys that belong to an owner."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Value]) -> RunConfig:
        """Read and validate a run config.

        Keys have dashes, as in ``flwr run --run-config``; missing keys take their default.

        Raises
        ------
        UserError
            For an unknown key, a wrong type or an impossible value: one line that names the key,
            the value and what is allowed.
        """
        known = declared()
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
                raise UserError(f"{name}={values[name]!r} is not a run-config key; {hint}")
        taken = {name: known[name].take(name, value) for name, value in values.items()}
        every = {**defaults_of(known), **taken}
        return cls.of(every, own=_owned(every))

    def check(self) -> None:
        """Look every name up, read the requests, and let every owner check its settings.

        Apart from `from_mapping` because a client, perhaps on another machine, needs neither the
        names it does not use nor the file that a request names.

        Raises
        ------
        UserError
            For a name that no registry knows, or a text that does not parse.
        """
        strategy, method = self.protocol(), METHODS.get(self.unlearning)
        client = load_client(strategy.client)
        if not issubclass(method, strategy.methods):
            allowed = f"{', '.join(fitting(self.strategy))} (with strategy={self.strategy!r})"
            raise refuse("unlearning", self.unlearning, allowed)
        self._check_read()
        Selection.of(self.own).check()
        architecture(self.cut_model().name)
        options, requests, made = self.all_options, self.requests(), self._checked_method()
        client.check_options(options)
        strategy.check_options(options, made)
        for key in ("data-dir", "out", "state-dir", "key-dir", "benchmark"):
            path = options.text(key)
            if path and not Path(path).is_absolute():
                raise refuse(key, path, "an absolute path: a run has no current folder of yours")
        if Path(self.out).suffix == ".json":
            raise refuse("out", self.out, "a folder, which result.json is written to")
        if self.out and self.out == self.state_dir:
            raise refuse("out", self.out, "another folder than state-dir, which has its own")
        method.check_options(options)
        Backdoor.of(self.own).check(options.flag("audit"), requests)
        check_given_away(options)
        if options["audit"]:
            check_audited(strategy, client)
        if self.state_dir and options["score-every"]:
            allowed = "0 (with state-dir accuracy is measured at the end of a phase alone)"
            raise refuse("score-every", options["score-every"], allowed)
        if self.key_dir and not self.state_dir:
            raise refuse("key-dir", self.key_dir, "empty (without state-dir there is no key)")
        if self.key_dir and Path(self.key_dir).is_relative_to(self.state_dir):
            raise refuse("key-dir", self.key_dir, "a folder outside state-dir")
        if self.verify and not self.state_dir:
            raise refuse("verify", True, "false (without state-dir there is nothing to compare)")

    def protocol(self, unlearning: str = "") -> type[SplitStrategy]:
        """Return the strategy that carries this run out, or would with another unlearning method.

        Raises
        ------
        UserError
            As `foundations.registry.Registry.get`.
        """
        return carrying_out(self.strategy, METHODS.get(unlearning or self.unlearning))

    def keys_read(self, unlearning: str = "") -> frozenset[str]:
        """Return the keys that mean something to this run, or would with another method.

        Whether the run is on texts shows when its data are loaded.
        """
        method = METHODS.get(unlearning or self.unlearning)
        read = merged(of_protocol(self.protocol(unlearning)), method.reads())
        own = {name for name, option in owned().items() if read.get(name) is option}
        dealing = DISTRIBUTIONS.get(self.distribution).reads()
        return frozenset({*general(), *own, *dealing, *Tokens.declared()})

    def _check_read(self) -> None:
        """Refuse a key that was set and that nothing reads."""
        read, dealing = self.keys_read(), merged(*of_distributions().values())
        for key, option in owned().items():
            if key in read or self.own[key] == option.default:
                continue
            ignored = f"strategy={self.strategy!r} and unlearning={self.unlearning!r} ignore it"
            if key in dealing:
                ignored = f"distribution={self.distribution!r} ignores it"
            why = refuse(key, self.own[key], f"{option.default!r} ({ignored})")
            reading = [name for name, options in readers().items() if key in options]
            raise IgnoredError(why, key, ", ".join(reading))

    def _checked_method(self) -> UnlearningMethod:
        """Make the unlearning method, which checks its settings; a stranger's may raise."""
        try:
            method = self.method()
            method.check()
        except UserError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"unlearning={self.unlearning!r} cannot be made: {reason}") from error
        return method

    def as_mapping(self) -> dict[str, Value]:
        """Return every key, with dashes, and its value."""
        shared = {key: getattr(self, key.replace("-", "_")) for key in self.declared()}
        return {**shared, **self.own}

    @cached_property
    def all_options(self) -> Options:
        """The run config and the settings of plug-ins: all that strategy, client and method read.

        Raises
        ------
        UserError
            As `read_options`.
        """
        return Options({**self.as_mapping(), **read_options(self.options, self.plugged())})

    def plugged(self, unlearning: str = "") -> dict[str, Option]:
        """Return the settings of plug-ins that this run reads, or would with another method."""
        known, method = owned(), METHODS.get(unlearning or self.unlearning)
        read = merged(of_protocol(self.protocol(unlearning)), method.reads())
        return {name: one for name, one in read.items() if known.get(name) is not one}

    def requests(self) -> list[Request]:
        """Return what to forget, one request after the other."""
        return RequestSettings.of(self.own).requests()

    @property
    def asking(self) -> Asking:
        """Who asks to forget the labels that the requests name."""
        return asking(self.own.text("forget-client"))

    @property
    def training_seed(self) -> int:
        """The seed of all that is not about data, see `Selection.training_seed`."""
        return Selection.of(self.own).training_seed(self.seed)

    def training(self) -> TrainingSettings:
        """Return what both sides of the cut must agree on to train."""
        return TrainingSettings.of(self.own, seed=self.training_seed)

    def cut_model(self) -> CutModel:
        """Return the network, and where and how it is cut."""
        return CutModel.of(self.own)

    def method(self) -> UnlearningMethod:
        """Return how to forget.

        Raises
        ------
        UserError
            As `all_options`; and whatever a plug-in says of them.
        """
        return METHODS.get(self.unlearning)(self.all_options)


def _owned(values: Mapping[str, Value]) -> Options:
    """Return the values of the keys that belong to an owner."""
    unowned = Keys.declared()
    return Options({key: value for key, value in values.items() if key not in unowned})


def fitting(strategy: str) -> list[str]:
    """Return the names of the unlearning methods that a strategy can carry out, sorted.

    Of another package, a method that cannot be used is left out.
    """
    possible = []
    for name in METHODS.names():
        with suppress(UserError):
            method = METHODS.get(name)
            if issubclass(method, carrying_out(strategy, method).methods):
                possible.append(name)
    return possible


def parse_setting(text: str) -> tuple[str, Value]:
    """Read one ``key=value`` of the command line; the value's type is that of the key's default.

    Raises
    ------
    UserError
        If there is no ``=`` or the value does not read as the key's type.
    """
    name, equals, raw = (part.strip() for part in text.partition("="))
    if not equals:
        raise refuse("--set", text, "key=value")
    option = declared().get(name)
    return name, raw if option is None else option.read(name, raw)
