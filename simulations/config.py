"""The run config: how it is read and checked, and what follows from it for each part of a run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

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
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import CutModel, architecture
from split_unlearning.models.training import TrainingSettings
from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS
from split_unlearning.simulations.data.selection import Selection
from split_unlearning.simulations.data.text import TEXT_OPTIONS, Tokens
from split_unlearning.simulations.keys import (
    Keys,
    declared,
    general,
    of_distributions,
    of_protocol,
    owned,
    readers,
)
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.registry import carrying_out
from split_unlearning.transport.floats import FloatCodec
from split_unlearning.unlearning.methods import METHODS, UnlearningMethod
from split_unlearning.unlearning.request import Request, parse_requests


@dataclass(frozen=True, kw_only=True)
class RunConfig(Keys):
    """What a run was asked to do, read and checked, and what follows from it."""

    own: Options = field(default_factory=lambda: Options(defaults_of(owned())))
    """The values of the keys that belong to a strategy, a method or another owner."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Value]) -> RunConfig:
        """Read and validate a run config.

        Parameters
        ----------
        values : Mapping
            Keys with dashes, as in ``flwr run --run-config``; missing keys take their default.

        Raises
        ------
        UserError
            For an unknown key, a wrong type or an impossible value: one line that names the key,
            the value and what is allowed.
        """
        known, own = declared(), owned()
        for name, value in values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
                raise UserError(f"{name}={value!r} is not a run-config key; {hint}")
        taken = {name: known[name].take(name, value) for name, value in values.items()}
        shared = {name.replace("-", "_"): taken[name] for name in taken.keys() - own.keys()}
        chosen = {name: value for name, value in taken.items() if name in own}
        return cls(**shared, own=Options({**defaults_of(own), **chosen}))  # type: ignore[arg-type]

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
        if self.shadow and not self.shadow_share:
            raise refuse("shadow", self.shadow, "0 (shadow-share=0 keeps nothing for shadow runs)")
        architecture(self.model)
        parse_requests(self.forget, self.forget_client)
        options, made = self.all_options, self._checked_method()
        client.check_options(options)
        strategy.check_options(options, made)
        for key in ("data-dir", "out", "state-dir", "key-dir", "benchmark"):
            path = getattr(self, key.replace("-", "_"))
            if path and not Path(path).is_absolute():
                raise refuse(key, path, "an absolute path: a run has no current folder of yours")
        if Path(self.out).suffix == ".json":
            raise refuse("out", self.out, "a folder, which result.json is written to")
        if self.out and self.out == self.state_dir:
            raise refuse("out", self.out, "another folder than state-dir, which has its own")
        if self.state_dir and not method.outlives_run:
            allowed = f"empty (unlearning={self.unlearning!r} keeps what it needs for one run only)"
            raise refuse("state-dir", self.state_dir, allowed)
        for key, rounded_to in (("precision", self.precision), ("codec", self.codec)):
            if rounded_to != "float32" and not method.any_precision:
                allowed = f"float32 (unlearning={self.unlearning!r} takes gradients apart)"
                raise refuse(key, rounded_to, allowed)
        if self.keep_models:
            self._check_given_away("keep-models")
        self._check_audit(strategy)
        if self.state_dir and self.score_every:
            allowed = "0 (with state-dir accuracy is measured at the end of a phase alone)"
            raise refuse("score-every", self.score_every, allowed)
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
        return frozenset({*general(), *own, *dealing, *TEXT_OPTIONS})

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

    def _check_given_away(self, key: str) -> None:
        """Refuse that clients give something to the run that has nowhere to go, or must not be."""
        if not self.out:
            raise refuse(key, True, "false (without out there is no folder to write it to)")
        if self.state_dir:
            allowed = "false (with state-dir: it shows what that folder is to forget)"
            raise refuse(key, True, allowed)

    def _check_audit(self, strategy: type[SplitStrategy]) -> None:
        """Refuse an audit that cannot be given or has nowhere to go, and a backdoor without one."""
        if self.backdoor and not self.audit:
            raise refuse("backdoor", self.backdoor, "empty (without audit nobody looks for it)")
        if self.backdoor and not self.requests():
            raise refuse("backdoor", self.backdoor, "empty (nothing is to be forgotten)")
        if not self.audit:
            return
        self._check_given_away("audit")
        client = load_client(strategy.client)
        for kind, scored, audited in (
            (strategy, "predictions_for", "outputs_for"),
            (client, "predicted", "probabilities"),
        ):
            # Whoever predicts in a way of its own says how probable labels are in its own way.
            predicts = next(one for one in kind.__mro__ if scored in vars(one))
            if audited not in vars(predicts):
                says = f"{predicts.__name__} defines {scored} and not {audited}"
                raise refuse("audit", True, f"false ({says})")

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
        shared = {key: getattr(self, key.replace("-", "_")) for key in general()}
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
        return parse_requests(self.forget, self.forget_client)

    def training(self) -> TrainingSettings:
        """Return what both sides of the cut must agree on to train."""
        return TrainingSettings(
            seed=self.training_seed,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            pretrain_epochs=self.pretrain_epochs,
            server_epochs=self.server_epochs,
            threads=self.threads,
            codec=cast(FloatCodec, self.codec),
        )

    def selection(self) -> Selection:
        """Return which samples of the data set the run sees."""
        return Selection(
            samples=self.samples,
            test_samples=self.test_samples,
            shadow_share=self.shadow_share,
            shadow=self.shadow,
        )

    @property
    def training_seed(self) -> int:
        """The seed of all that is not about data: of a shadow run another than of its target.

        Which samples a run sees and who holds them follows from `seed` alone.
        """
        return derive_seed(self.seed, "shadow-run", self.shadow) if self.shadow else self.seed

    @property
    def pretrained(self) -> str:
        """The weights and the tokenizer that a network of texts begins with."""
        return self.own.text("pretrained")

    def cut_model(self) -> CutModel:
        """Return the network, and where and how it is cut."""
        may_ask = bool(self.pretrained) and self.download
        return CutModel(self.model, self.cut, self.client_norm, self.pretrained, may_ask)

    def tokens(self) -> Tokens:
        """Return how texts become token ids."""
        may_ask = bool(self.pretrained) and self.download
        return Tokens(self.own.integer("text-length"), self.pretrained, may_ask)

    def method(self) -> UnlearningMethod:
        """Return how to forget.

        Raises
        ------
        UserError
            As `all_options`; and whatever a plug-in says of them.
        """
        return METHODS.get(self.unlearning)(self.all_options)


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
