"""The run config: how it is read and checked, and what follows from it for each part of a run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, cast

from split_unlearning.clients.base import load_client
from split_unlearning.clients.label_privacy.consensus import ConsensusSettings
from split_unlearning.clients.label_privacy.copies import Copies
from split_unlearning.clients.label_privacy.label_map import Expansion
from split_unlearning.clients.label_privacy.mechanism import Kind, Mechanism, Unit
from split_unlearning.clients.label_privacy.settings import LabelPrivacy
from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import Value, merged, read_options, read_value
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import CutModel, architecture
from split_unlearning.models.training import TrainingSettings
from split_unlearning.simulations.data.distributions.flwr_datasets import READS, LibrarySettings
from split_unlearning.simulations.data.selection import Selection
from split_unlearning.simulations.data.text import Tokens
from split_unlearning.simulations.keys import TOO_LARGE, Keys
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.registry import carrying_out
from split_unlearning.strategies.server.gradient_noise import GradientNoise
from split_unlearning.transport.floats import FloatCodec
from split_unlearning.unlearning.methods import (
    METHODS,
    Retrain,
    StagedMethod,
    UnlearningMethod,
    UnlearningSettings,
)
from split_unlearning.unlearning.request import Request, parse_requests


@dataclass(frozen=True, kw_only=True)
class RunConfig(Keys):
    """What a run was asked to do, read and checked, and what follows from it."""

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
        known = _declared()
        chosen: dict[str, Value] = {}
        for name, value in values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
                raise UserError(f"{name}={value!r} is not a run-config key; {hint}")
            declared = known[name]
            allowed = declared.metadata["allowed"]
            if declared.metadata["mixed"] and type(value) in (int, float):
                value = str(value)
            value = _as_type(name, value, type(declared.default), allowed)
            if not declared.metadata["admits"](value):
                raise refuse(name, value, allowed)
            chosen[declared.name] = value
        return cls(**chosen)  # type: ignore[arg-type]

    def check(self) -> None:
        """Look every name up, and read the requests.

        Apart from `from_mapping` because a client, perhaps on another machine, needs neither the
        names it does not use nor the file that a request names.

        Raises
        ------
        UserError
            For a name that no registry knows, or a text that does not parse.
        """
        strategy, method = self.protocol(), METHODS.get(self.unlearning)
        load_client(strategy.client)
        if not issubclass(method, strategy.methods):
            allowed = f"{', '.join(fitting(self.strategy))} (with strategy={self.strategy!r})"
            raise refuse("unlearning", self.unlearning, allowed)
        self._check_used(self.keys_read())
        if self.slices > 1 and not issubclass(method, Retrain):
            allowed = f"1 (unlearning={self.unlearning!r} goes on from the last step alone)"
            raise refuse("slices", self.slices, allowed)
        if self.shadow and not self.shadow_share:
            raise refuse("shadow", self.shadow, "0 (shadow-share=0 keeps nothing for shadow runs)")
        self.label_privacy()
        architecture(self.model)
        parse_requests(self.forget, self.forget_client)
        self._stable_clients()
        self._check_method()
        self._check_label_privacy()
        for key in ("data-dir", "out", "state-dir", "benchmark"):
            path = getattr(self, key.replace("-", "_"))
            if path and not Path(path).is_absolute():
                raise refuse(key, path, "an absolute path: a run has no current folder of yours")
        if self.out and self.out == self.state_dir:
            raise refuse("out", self.out, "another folder than state-dir, which has its own")
        if self.state_dir and self.skip_absent:
            raise refuse("skip-absent", True, "false (with state-dir every client keeps its part)")
        if self.state_dir and not method.outlives_run:
            allowed = f"empty (unlearning={self.unlearning!r} keeps what it needs for one run only)"
            raise refuse("state-dir", self.state_dir, allowed)
        for key, rounded_to in (("precision", self.precision), ("codec", self.codec)):
            if rounded_to != "float32" and not method.any_precision:
                allowed = f"float32 (unlearning={self.unlearning!r} takes gradients apart)"
                raise refuse(key, rounded_to, allowed)
        self._check_audit(strategy)
        if self.state_dir and self.score_every:
            allowed = "0 (with state-dir accuracy is measured at the end of a phase alone)"
            raise refuse("score-every", self.score_every, allowed)
        if self.verify and not self.state_dir:
            raise refuse("verify", True, "false (without state-dir there is nothing to compare)")

    def protocol(self, unlearning: str = "") -> type[SplitStrategy]:
        """Return the strategy that carries this run out.

        Parameters
        ----------
        unlearning : str
            With this unlearning method; by default with its own.

        Raises
        ------
        UserError
            As `foundations.registry.Registry.get`.
        """
        return carrying_out(self.strategy, METHODS.get(unlearning or self.unlearning))

    def keys_read(self, unlearning: str = "") -> frozenset[str]:
        """Return the keys that mean something to this run.

        Parameters
        ----------
        unlearning : str
            With this unlearning method; by default with its own.
        """
        shared = {key for key, declared in _declared().items() if declared.metadata["shared"]}
        method = METHODS.get(unlearning or self.unlearning)
        own = self.protocol(unlearning).uses | method.uses
        return own | READS.get(self.distribution, frozenset()) | frozenset(shared)

    def _check_used(self, used: frozenset[str]) -> None:
        """Refuse a key that was set and that nothing reads."""
        for declared in fields(self):
            key, value = declared.name.replace("_", "-"), getattr(self, declared.name)
            if key not in used and value != declared.default:
                readers = f"strategy={self.strategy!r} and unlearning={self.unlearning!r}"
                ignored = f"{readers} ignore it"
                if key in frozenset().union(*READS.values()):
                    ignored = f"distribution={self.distribution!r} ignores it"
                raise refuse(key, value, f"{declared.default!r} ({ignored})")

    def _check_audit(self, strategy: type[SplitStrategy]) -> None:
        """Refuse an audit that cannot be given or has nowhere to go, and a backdoor without one."""
        if self.backdoor and not self.audit:
            raise refuse("backdoor", self.backdoor, "empty (without audit nobody looks for it)")
        if self.backdoor and not self.requests():
            raise refuse("backdoor", self.backdoor, "empty (nothing is to be forgotten)")
        if not self.audit:
            return
        if not self.out:
            raise refuse("audit", True, "false (without out there is no folder to write it to)")
        if self.state_dir:
            allowed = "false (with state-dir: it shows what that folder is to forget)"
            raise refuse("audit", True, allowed)
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

    def _check_method(self) -> None:
        """Make the unlearning method once, to hear what it has to say; a stranger's may raise."""
        try:
            self.method().check()
        except UserError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"unlearning={self.unlearning!r} cannot be made: {reason}") from error

    def _check_label_privacy(self) -> None:
        """Refuse protections of labels that lack what they need, or that have no effect."""
        if self.label_mechanism == "none" and self.label_epsilon:
            raise refuse("label-epsilon", self.label_epsilon, "0 (without a label-mechanism)")
        if self.label_mechanism != "none" and not self.label_epsilon:
            allowed = f"a number > 0 (with label-mechanism={self.label_mechanism!r})"
            raise refuse("label-epsilon", self.label_epsilon, allowed)
        noise, method = self.noise(), self.method()
        if noise is None and self.gradient_noise_power:
            allowed = "0 (without gradient-noise='marvell')"
            raise refuse("gradient-noise-power", self.gradient_noise_power, allowed)
        if noise is None or not noise.needs_labels or not isinstance(method, StagedMethod):
            return
        if not all("labels" in stage.objective.sends for stage in method.stages()):
            allowed = f"none, max-norm (unlearning={self.unlearning!r} sends no labels)"
            raise refuse("gradient-noise", self.gradient_noise, allowed)

    def as_mapping(self) -> dict[str, Value]:
        """Return every key, with dashes, and its value."""
        return {
            declared.name.replace("_", "-"): getattr(self, declared.name)
            for declared in fields(self)
        }

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
            slices=self.slices,
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

    def label_privacy(self) -> LabelPrivacy:
        """Return how clients hide their labels.

        Raises
        ------
        UserError
            If `expansion` is neither a number nor a range, or noise is described and not asked for.
        """
        mechanism = None
        if self.epsilon == "none":
            for key in ("mechanism", "delta", "clip", "privacy-unit"):
                value, default = (getattr(one, key.replace("-", "_")) for one in (self, RunConfig))
                if value != default:
                    raise refuse(key, value, f"{default!r} (epsilon='none' adds no noise)")
        else:
            mechanism = Mechanism(
                cast(Kind, self.mechanism),
                float(self.epsilon),
                self.delta,
                self.clip,
                cast(Unit, self.privacy_unit),
            )
        return LabelPrivacy(
            expansion=Expansion.parse(self.expansion),
            copies=cast(Copies, self.copies),
            mechanism=mechanism,
            secrets=self.secrets,
            consensus=ConsensusSettings(
                add=self.consensus_add, finish=self.consensus_finish, most=self.consensus_most
            ),
            attacks=self.attacks,
        )

    def cut_model(self) -> CutModel:
        """Return the network, and where and how it is cut."""
        return CutModel(
            self.model,
            self.cut,
            self.client_norm,
            self.pretrained,
            bool(self.pretrained) and self.download,
        )

    def tokens(self) -> Tokens:
        """Return how texts become token ids."""
        return Tokens(self.text_length, self.pretrained, bool(self.pretrained) and self.download)

    def library(self) -> LibrarySettings:
        """Return what the partitioners of flwr-datasets are to be told."""
        return LibrarySettings(
            dirichlet_alpha=self.dirichlet_alpha,
            labels_per_client=self.labels_per_client,
            shards_per_client=self.shards_per_client,
        )

    def stable_first(self, num_clients: int) -> list[int]:
        """Return the clients in the order in which their shards enter the server's slices.

        Raises
        ------
        UserError
            If it is not an order of these clients.
        """
        named = self._stable_clients() or list(range(num_clients))
        if len(named) != num_clients:
            allowed = f"each number from 0 to {num_clients - 1} once, or empty"
            raise refuse("stable-clients", self.stable_clients, allowed)
        return named

    def _stable_clients(self) -> list[int]:
        words = self.stable_clients.split(",") if self.stable_clients else []
        numbers = [int(word) if word.strip().isdecimal() else -1 for word in words]
        if sorted(numbers) != list(range(len(numbers))):
            allowed = "each client's number once, separated by commas, or empty"
            raise refuse("stable-clients", self.stable_clients, allowed)
        return numbers

    def method(self) -> UnlearningMethod:
        """Return how to forget.

        Raises
        ------
        UserError
            As `plugin_options`; and whatever a plug-in says of them.
        """
        settings = UnlearningSettings(
            fine_tune_epochs=self.fine_tune_epochs,
            ascent_epochs=self.ascent_epochs,
            ascent_bound=self.ascent_bound,
            distillation_epochs=self.distillation_epochs,
            distillation_alpha=self.distillation_alpha,
            cache_codec=self.cache_codec,
            cache_every=self.cache_every,
            shares=self.shares,
            projection_beta=self.projection_beta,
            client_part=self.client_part,
            lost_gradients=self.lost_gradients,
            fine_tune_share=self.fine_tune_share,
            projection_variant=self.projection_variant,
            projection_weighting=self.projection_weighting,
            projection_devaluation=self.projection_devaluation,
            projection_edge_boost=self.projection_edge_boost,
            options=self.plugin_options(),
        )
        return METHODS.get(self.unlearning)(settings)

    def noise(self) -> GradientNoise | None:
        """Return what the server adds to the gradients that it returns; None for nothing.

        Raises
        ------
        UserError
            As `GradientNoise`.
        """
        if self.gradient_noise == "none":
            return None
        return GradientNoise(self.gradient_noise, self.gradient_noise_power)

    def plugin_options(self) -> dict[str, Value]:
        """Return the settings that the strategy and the unlearning method declare as their own.

        Raises
        ------
        UserError
            As `read_options`.
        """
        method = METHODS.get(self.unlearning)
        return read_options(self.options, merged(self.protocol().own_options, method.own_options))


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


def _declared() -> dict[str, Field[Any]]:
    """Return what every key was declared with."""
    return {declared.name.replace("_", "-"): declared for declared in fields(RunConfig)}


def _as_type(name: str, value: object, wanted: type, allowed: str) -> Value:
    """Return `value` as the type of the key's default; an integer may stand for a number."""
    if wanted is float and type(value) is int and abs(value) < TOO_LARGE:
        return float(value)
    if type(value) is not wanted:
        kind = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}[wanted]
        raise refuse(name, value, f"{kind} ({allowed})")
    return value  # type: ignore[return-value]


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
    declared = _declared().get(name)
    if declared is None:
        return name, raw
    try:
        return name, read_value(RunConfig().as_mapping()[name], raw)
    except ValueError as error:
        raise refuse(name, raw, declared.metadata["allowed"]) from error
