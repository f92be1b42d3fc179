"""The run config: every key, its default, what it means and what it allows."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast, get_args

from clients.base import load_client
from clients.label_privacy.consensus import ConsensusSettings
from clients.label_privacy.copies import Copies
from clients.label_privacy.label_map import Expansion
from clients.label_privacy.mechanism import Kind, Mechanism, Unit
from clients.label_privacy.settings import LabelPrivacy
from models.errors import UserError, refuse
from models.options import Value, merged, read_options, read_value
from models.split import CutModel, architecture
from models.training import TrainingSettings
from simulations.data.library import LIBRARY, READS, LibrarySettings
from simulations.data.partition import DISTRIBUTIONS
from strategies.base import SplitStrategy
from strategies.gradient_noise import GRADIENT_NOISES, GradientNoise
from strategies.registry import STRATEGIES
from unlearning.gradient_cache import CODECS
from unlearning.gradient_projection_paper import VARIANTS, WEIGHTINGS
from unlearning.methods import (
    METHODS,
    Retrain,
    StagedMethod,
    UnlearningMethod,
    UnlearningSettings,
)
from unlearning.projection import SHARES
from unlearning.request import Request, parse_requests

# TOML's integers end here, and so do seeds and ids; a larger number is a slip of the finger.
_TOO_LARGE = 2**63

# Registries look their values up themselves, entry points included; these keys only need a name.
_ANY_NAME = "a name that `split-unlearning list` shows"


def _key(
    default: Value,
    meaning: str,
    allowed: str,
    admits: Callable[[Any], bool] = lambda _: True,
    shared: bool = True,
    mixed: bool = False,
) -> Any:
    """Declare one run-config key.

    One that is not `shared` means something only to the strategies and unlearning methods whose
    ``uses`` name it. One that is `mixed` is a text that may be a number, and then needs no quotes.
    """
    metadata = {
        "meaning": meaning,
        "allowed": allowed,
        "admits": admits,
        "shared": shared,
        "mixed": mixed,
    }
    return field(default=default, metadata=metadata)


def _own(
    default: Value,
    meaning: str,
    allowed: str,
    admits: Callable[[Any], bool] = lambda _: True,
    mixed: bool = False,
) -> Any:
    """Declare a run-config key that only some strategies and unlearning methods read."""
    return _key(default, meaning, allowed, admits, shared=False, mixed=mixed)


def _positive(value: float) -> bool:
    return 0 < value < _TOO_LARGE


def _not_negative(value: float) -> bool:
    return 0 <= value < _TOO_LARGE


def _chance(value: float) -> bool:
    return 0 < value <= 1


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


_LABEL_MECHANISMS = ("none", "rr-with-prior")

_RESERVED = "a number from 0 to 1, or a whole number"


def _reservable(value: float) -> bool:
    """Say whether Ray can reserve so much: it shares one unit, but not several."""
    return _not_negative(value) and (value <= 1 or value == int(value))


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run was asked to do; the dashes of the keys are underscores here.

    ``tool.flwr.app.config`` in ``pyproject.toml`` repeats the defaults, because Flower refuses keys
    that it does not find there.
    """

    strategy: str = _key("splitwiper", "how to learn", _ANY_NAME)
    unlearning: str = _key("retrain", "how to forget", _ANY_NAME)
    dataset: str = _key("digits", "what to learn", _ANY_NAME)
    data_dir: str = _key(
        "", "folder of the data sets that torchvision knows", "an absolute path, or empty"
    )
    download: bool = _key(
        False, "torchvision may fetch into data-dir what is not there", "true, false"
    )
    distribution: str = _key(
        "heterogeneous-labels",
        "how samples are dealt to clients",
        ", ".join((*DISTRIBUTIONS, *LIBRARY)),
        lambda value: value in DISTRIBUTIONS or value in LIBRARY,
    )
    dirichlet_alpha: float = _own(
        0.5, "concentration; the smaller, the fewer clients hold a label", "a number > 0", _positive
    )
    labels_per_client: int = _own(
        2, "labels of each client, if pathological", "an integer >= 1", _positive
    )
    shards_per_client: int = _own(
        2, "shards of each client, sorted by label", "an integer >= 1", _positive
    )
    model: str = _key("cnn", "the network that is cut", _ANY_NAME)
    cut: str = _key(
        "", "the last layer that a client holds", "a layer of the model, or empty for its own cut"
    )
    client_norm: str = _key(
        "keep",
        "group norm in the place of batch norm, on the client's side of the cut",
        "keep, group",
        lambda value: value in ("keep", "group"),
    )
    forget: str = _key(
        "class:2",
        "what to forget; several requests are separated by ;",
        "class:NAME, client:N, samples:SHARE@class:NAME, ids:FILE, or empty for nothing",
    )
    forget_client: int = _key(
        0,
        "whose samples class: and samples: mean",
        "the number of a client, from 0",
        _not_negative,
    )
    pretrain_epochs: int = _key(
        10, "N, epochs a client trains alone", "an integer >= 0", _not_negative
    )
    server_epochs: int = _key(
        30, "M, epochs of the split-learning phase", "an integer >= 1", _positive
    )
    batch_size: int = _key(32, "samples a batch", "an integer >= 1", _positive)
    learning_rate: float = _key(0.1, "step size of SGD", "a number > 0", _positive)
    momentum: float = _key(0.0, "momentum of SGD", "0 <= x < 1", lambda value: 0 <= value < 1)
    weight_decay: float = _key(0.0, "weight decay of SGD", "a number >= 0", _not_negative)
    client_sync: str = _own(
        "none",
        "each client keeps its segment, or hands it on",
        "none, handoff",
        lambda value: value in ("none", "handoff"),
    )
    splitfed_version: int = _own(
        1,
        "a copy of the server segment for each client, or one for all",
        "1, 2",
        lambda value: value in (1, 2),
    )
    slices: int = _own(
        1, "slices of a client's samples, to retrain from the middle", "an integer >= 1", _positive
    )
    server_slices: int = _own(
        1, "slices of the clients, for the server to do so", "an integer >= 1", _positive
    )
    stable_clients: str = _own(
        "", "the clients, those least likely to ask first", "each client's number once, or empty"
    )
    init_from: str = _own(
        "fresh",
        "what client segments start from: fresh weights, or SplitWiper's pre-trained ones",
        "fresh, splitwiper",
        lambda value: value in ("fresh", "splitwiper"),
    )
    fine_tune_epochs: int = _own(
        6, "epochs of training on, without what is forgotten", "an integer >= 1", _positive
    )
    ascent_epochs: int = _own(
        6, "epochs of gradient ascent, on what is forgotten", "an integer >= 1", _positive
    )
    ascent_bound: float = _own(
        1.0, "how far ascent pushes a loss, in units of that of guessing", "a number > 0", _positive
    )
    distillation_epochs: int = _own(
        6, "epochs of distillation, on everything", "an integer >= 1", _positive
    )
    distillation_alpha: float = _own(
        0.5, "α, the weight of forgetting", "0 <= x <= 1", lambda value: 0 <= value <= 1
    )
    expansion: str = _own(
        "3",
        "γ, masked labels a label becomes",
        "an integer >= 1, or a range such as 1-3",
        mixed=True,
    )
    copies: str = _own(
        "modes",
        "a record goes under all masked labels of its label, one at random, or that of its mode",
        ", ".join(get_args(Copies)),
        lambda value: value in get_args(Copies),
    )
    mechanism: str = _own(
        "laplace",
        "noise on what is uploaded, where epsilon is given",
        "laplace, gaussian",
        lambda value: value in ("laplace", "gaussian"),
    )
    epsilon: str = _own(
        "none",
        "privacy budget of one upload of one record; none for no noise",
        "a number > 0, or none",
        lambda value: value == "none" or _is_positive(value),
        mixed=True,
    )
    delta: float = _own(
        1e-5, "δ, of the Gaussian mechanism", "0 < x < 1", lambda value: 0 < value < 1
    )
    clip: float = _own(
        1.0,
        "bound on smashed data under noise: a record's norm, or an element",
        "a number > 0",
        _positive,
    )
    privacy_unit: str = _own(
        "record",
        "what epsilon is about: a whole record, or each element of one alone",
        "record, element",
        lambda value: value in ("record", "element"),
    )
    secrets: str = _own(
        "seed",
        "what clients' secrets follow from: the seed, to repeat a run; or nothing, for privacy",
        "seed, drawn",
        lambda value: value in ("seed", "drawn"),
    )
    consensus_add: float = _own(
        0.8, "λ1, how likely a client adds labels on a visit", "0 < x <= 1", _chance
    )
    consensus_finish: float = _own(
        0.8, "λ2, how likely one that misses none says so", "0 < x <= 1", _chance
    )
    consensus_most: int = _own(
        3, "μ, labels a client adds at most on a visit", "an integer >= 1", _positive
    )
    consensus_rounds: int = _own(
        100, "how often the pool goes round at most", "an integer >= 1", _positive
    )
    attacks: bool = _own(
        False,
        "measure what the server can tell of masked labels; a client reveals them for that",
        "true, false",
    )
    label_mechanism: str = _own(
        "none",
        "how clients tell their labels: as they are, or by randomised response",
        ", ".join(_LABEL_MECHANISMS),
        lambda value: value in _LABEL_MECHANISMS,
    )
    label_epsilon: float = _own(
        0.0,
        "ε of the label mechanism, for a record's label",
        "a number > 0, or 0 without a label-mechanism",
        _not_negative,
    )
    gradient_noise: str = _own(
        "none",
        "noise on the gradients that the server returns",
        ", ".join(("none", *GRADIENT_NOISES)),
        lambda value: value in ("none", *GRADIENT_NOISES),
    )
    gradient_noise_power: float = _own(
        0.0,
        "of marvell's noise, in squared distances between the labels' gradients",
        "a number > 0, or 0 without marvell",
        _not_negative,
    )
    cache_codec: str = _own(
        "float32", "how gradients are cached", ", ".join(CODECS), lambda value: value in CODECS
    )
    cache_every: int = _own(
        1, "of every how many steps a gradient is cached", "an integer >= 1", _positive
    )
    shares: str = _own(
        "recompute",
        "what of a mixed batch's gradient is forgotten: taken again, or the whole",
        ", ".join(SHARES),
        lambda value: value in SHARES,
    )
    projection_beta: float = _own(
        1.0, "β, how much of a projection is done", "0 <= x <= 2", lambda v: 0 <= v <= 2
    )
    client_part: str = _own(
        "chain",
        "with client-sync=handoff, clients project in turn, or each its own steps",
        "chain, local",
        lambda value: value in ("chain", "local"),
    )
    fine_tune_share: float = _own(
        0.1,
        "epochs of training on after projection, of server-epochs; at least one",
        "0 < x <= 1",
        lambda value: 0 < value <= 1,
    )
    projection_variant: str = _own(
        "raw",
        "what is projected out of the forget gradients' sum",
        ", ".join(VARIANTS),
        lambda value: value in VARIANTS,
    )
    projection_weighting: str = _own(
        "U",
        "how forget gradients weigh over the steps",
        ", ".join(WEIGHTINGS),
        lambda value: value in WEIGHTINGS,
    )
    projection_devaluation: float = _own(
        0.25, "the least such weight", "0 <= x <= 1", lambda value: 0 <= value <= 1
    )
    projection_edge_boost: float = _own(
        4.0, "how much more the first and last step weigh", "a number > 0", _positive
    )
    round_timeout: float = _key(
        3600.0, "seconds a client has for an answer", "0 < x <= 1000000", lambda v: 0 < v <= 1e6
    )
    skip_absent: bool = _own(
        False, "an epoch goes on without a client that does not answer", "true, false"
    )
    bandwidth_mbps: float = _key(
        100.0, "for transmission seconds; never slept", "a number > 0", _positive
    )
    latency_ms: float = _key(0.0, "round trip, for transmission seconds", ">= 0", _not_negative)
    upload_chunk_mb: float = _key(
        16.0, "largest upload in one message, 10^6 bytes", "0 < x <= 1000", lambda v: 0 < v <= 1000
    )
    server_num_cpus: float = _key(
        0.0, "CPUs that Ray reserves for the server segment", _RESERVED, _reservable
    )
    server_num_gpus: float = _key(
        0.0, "GPUs that Ray reserves for the server segment", _RESERVED, _reservable
    )
    threads: int = _key(
        1,
        "threads of each segment; they change the last bits",
        "an integer from 1 to 1024",
        lambda value: 1 <= value <= 1024,
    )
    options: str = _key("", "a plug-in's own settings", "'name=value name=value'")
    out: str = _key(
        "", "folder that result.json is written to", "an absolute path, or empty for none"
    )
    state_dir: str = _key(
        "",
        "folder that keeps what later requests need",
        "an absolute path to a new folder, or empty for none",
    )
    verify: bool = _key(
        False, "train again without what state-dir has forgotten, and compare", "true, false"
    )
    seed: int = _key(0, "of every random draw", "an integer >= 0", _not_negative)

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
        known = {declared.name.replace("_", "-"): declared for declared in fields(cls)}
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
        strategy = STRATEGIES.get(self.strategy)
        load_client(strategy.client)
        method = METHODS.get(self.unlearning)
        if not issubclass(method, strategy.methods):
            allowed = f"{', '.join(fitting(strategy))} (with strategy={self.strategy!r})"
            raise refuse("unlearning", self.unlearning, allowed)
        self._check_used(strategy.uses | method.uses | READS.get(self.distribution, frozenset()))
        if self.slices > 1 and not issubclass(method, Retrain):
            allowed = f"1 (unlearning={self.unlearning!r} goes on from the last step alone)"
            raise refuse("slices", self.slices, allowed)
        self.label_privacy()
        architecture(self.model)
        parse_requests(self.forget, self.forget_client)
        self._stable_clients()
        self._check_method()
        self._check_label_privacy()
        for key in ("data-dir", "out", "state-dir"):
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
        if self.verify and not self.state_dir:
            raise refuse("verify", True, "false (without state-dir there is nothing to compare)")

    def _check_used(self, used: frozenset[str]) -> None:
        """Refuse a key that was set and that nothing reads."""
        for declared in fields(self):
            key, value = declared.name.replace("_", "-"), getattr(self, declared.name)
            if not declared.metadata["shared"] and key not in used and value != declared.default:
                readers = f"strategy={self.strategy!r} and unlearning={self.unlearning!r}"
                ignored = f"{readers} ignore it"
                if key in frozenset().union(*READS.values()):
                    ignored = f"distribution={self.distribution!r} ignores it"
                raise refuse(key, value, f"{declared.default!r} ({ignored})")

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
            seed=self.seed,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            pretrain_epochs=self.pretrain_epochs,
            server_epochs=self.server_epochs,
            slices=self.slices,
            threads=self.threads,
        )

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
                value, default = (one.as_mapping()[key] for one in (self, RunConfig()))
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
        return CutModel(self.model, self.cut, self.client_norm)

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
        strategy, method = STRATEGIES.get(self.strategy), METHODS.get(self.unlearning)
        return read_options(self.options, merged(strategy.own_options, method.own_options))


def fitting(strategy: type[SplitStrategy]) -> list[str]:
    """Return the names of the unlearning methods that a strategy can carry out, sorted.

    One of another package that cannot be used is left out.
    """
    possible = []
    for name in METHODS.names():
        with suppress(UserError):
            if issubclass(METHODS.get(name), strategy.methods):
                possible.append(name)
    return possible


def _as_type(name: str, value: object, wanted: type, allowed: str) -> Value:
    """Return `value` as the type of the key's default; an integer may stand for a number."""
    if wanted is float and type(value) is int and abs(value) < _TOO_LARGE:
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
    declared = {item.name.replace("_", "-"): item for item in fields(RunConfig)}.get(name)
    if declared is None:
        return name, raw
    try:
        return name, read_value(RunConfig().as_mapping()[name], raw)
    except ValueError as error:
        raise refuse(name, raw, declared.metadata["allowed"]) from error
