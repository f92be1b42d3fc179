"""Every key of the run config: its default, what it means and what it allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from split_unlearning.clients.label_privacy.copies import Copies
from split_unlearning.foundations.options import Value
from split_unlearning.models.bert import is_hub_name
from split_unlearning.simulations.data.distributions.flwr_datasets import LIBRARY
from split_unlearning.simulations.data.distributions.labels import DISTRIBUTIONS
from split_unlearning.simulations.data.distributions.tasks import DIFFERENT_TASKS
from split_unlearning.strategies.server.gradient_noise import GRADIENT_NOISES
from split_unlearning.strategies.server.precision import PRECISIONS
from split_unlearning.transport.floats import FLOAT_CODECS
from split_unlearning.unlearning.gradient_projection.codec import CODECS
from split_unlearning.unlearning.gradient_projection.one_shot import VARIANTS, WEIGHTINGS
from split_unlearning.unlearning.gradient_projection.sequential import SHARES

# TOML's integers end here, and so do seeds and ids; a larger number is a slip of the finger.
TOO_LARGE = 2**63

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
    return 0 < value < TOO_LARGE


def _not_negative(value: float) -> bool:
    return 0 <= value < TOO_LARGE


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
class Keys:
    """The keys; their dashes are underscores here.

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
    samples: int = _key(
        0,
        "train samples that the run sees, of all labels in proportion; 0 for all",
        "an integer >= 0",
        _not_negative,
    )
    test_samples: int = _key(0, "the same of the test samples", "an integer >= 0", _not_negative)
    shadow_share: float = _key(
        0.0,
        "share of each label's samples, train and test, kept from the run for its shadow runs",
        "0 <= x < 1",
        lambda value: 0 <= value < 1,
    )
    shadow: int = _key(
        0,
        "0 for a run that shadow runs are compared with; from 1, which of its shadow runs this is",
        "an integer >= 0",
        _not_negative,
    )
    distribution: str = _key(
        "heterogeneous-labels",
        "how samples are dealt to clients",
        ", ".join((*DISTRIBUTIONS, *DIFFERENT_TASKS, *LIBRARY)),
        lambda value: value in DISTRIBUTIONS | DIFFERENT_TASKS | LIBRARY,
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
    text_length: int = _key(
        64, "tokens of a text; longer ones are cut off", "an integer >= 1", _positive
    )
    pretrained: str = _key(
        "",
        "weights and tokenizer that bert begins with; download=true may ask the hub for them",
        "an absolute path to a folder, a name on the hub, or empty for a small random BERT",
        lambda value: not value or Path(value).is_absolute() or is_hub_name(value),
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
    lost_gradients: str = _own(
        "none",
        "with client-sync=handoff, what stands for the gradients of a client that is dropped: "
        "nothing, or those of the others' nearest steps",
        "none, nearest",
        lambda value: value in ("none", "nearest"),
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
    codec: str = _key(
        "float32",
        "what smashed data and gradients are rounded to where they cross the cut",
        ", ".join(FLOAT_CODECS),
        lambda value: value in FLOAT_CODECS,
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
    precision: str = _key(
        "float32",
        "what the server segment's passes compute with; weights, loss and clients stay float32",
        ", ".join(PRECISIONS),
        lambda value: value in PRECISIONS,
    )
    options: str = _key("", "a plug-in's own settings", "'name=value name=value'")
    out: str = _key(
        "", "folder that result.json is written to", "an absolute path, or empty for none"
    )
    score_every: int = _key(
        0,
        "epochs of training after which accuracy is measured too; 0 for at the end alone",
        "an integer >= 0",
        _not_negative,
    )
    audit: bool = _key(
        False,
        "clients give the run the labels and the outputs of all their samples, written to out",
        "true, false",
    )
    backdoor: str = _key(
        "",
        "label that a white square stands for, planted in what is to be forgotten, for an audit",
        "a label's name or number, or empty for no backdoor",
        mixed=True,
    )
    state_dir: str = _key(
        "",
        "folder that keeps what later requests need",
        "an absolute path to a new folder, or empty for none",
    )
    benchmark: str = _key(
        "",
        "folder of a benchmark, whose runs are carried out instead; the command line says it",
        "an absolute path, or empty",
    )
    verify: bool = _key(
        False, "train again without what state-dir has forgotten, and compare", "true, false"
    )
    seed: int = _key(0, "of every random draw", "an integer >= 0", _not_negative)
