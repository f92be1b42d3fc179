"""The run config: what is allowed, and the one line that refuses the rest."""

from dataclasses import fields
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.options import positive
from split_unlearning.models.training import TrainingSettings
from split_unlearning.simulations.config import RunConfig, parse_setting
from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS
from split_unlearning.simulations.keys import by_owner, declared, table
from split_unlearning.unlearning.methods import METHODS, FineTuning, UnlearningMethod
from split_unlearning.unlearning.request import parse_requests

KEYS = list(declared())
FLAGS = ("attacks", "audit", "download", "keep-models", "overwrite", "skip-absent", "verify")
NAN, INF = float("nan"), float("inf")


def refusal(call, *arguments):
    """Return the one line with which a call is refused."""
    with pytest.raises(UserError) as refused:
        call(*arguments)
    message = str(refused.value)
    assert message
    assert "\n" not in message
    return message


def test_the_defaults_are_those_that_flower_reads():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert table(RunConfig().as_mapping()) in text, "python -m split_unlearning.simulations.keys"


def test_the_defaults_are_possible():
    config = RunConfig.from_mapping(RunConfig().as_mapping())
    config.check()
    assert config == RunConfig() == RunConfig.from_mapping({})


def test_every_key_says_what_it_means_and_allows():
    for option in declared().values():
        assert option.meaning
        assert option.allowed


# Refused by `from_mapping`: wrong types, and values out of range.
BAD_TYPES = [
    *((key, value) for key in KEYS for value in (None, [1], {"a": 1})),
    *((key, True) for key in KEYS if key not in FLAGS),
    *((key, value) for key in FLAGS for value in (1, "true")),
    ("strategy", 3),
    ("unlearning", 0.5),
    ("dataset", 1),
    ("data-dir", 1),
    ("distribution", 1),
    ("dirichlet-alpha", "0.5"),
    ("labels-per-client", 2.0),
    ("shards-per-client", "2"),
    ("model", 2),
    ("cut", 1),
    ("text-length", "x"),
    ("pretrained", 1),
    ("client-norm", True),
    ("client-norm", 1),
    ("forget", 2),
    ("forget-client", True),
    ("pretrain-epochs", 1.0),
    ("server-epochs", "30"),
    ("batch-size", 32.0),
    ("learning-rate", "0.1"),
    ("momentum", "0"),
    ("weight-decay", ""),
    ("client-sync", 0),
    ("splitfed-version", "1"),
    ("bandwidth-mbps", "fast"),
    ("latency-ms", "0"),
    ("upload-chunk-mb", "16"),
    ("server-num-cpus", "1"),
    ("server-num-gpus", b"1"),
    ("threads", 1.5),
    ("precision", 32),
    ("codec", 16),
    ("slices", 2.0),
    ("server-slices", "2"),
    ("stable-clients", 1),
    ("label-mechanism", False),
    ("label-epsilon", "1"),
    ("gradient-noise", 0),
    ("gradient-noise-power", "1"),
    ("cache-codec", 8),
    ("cache-every", 1.0),
    ("shares", 1),
    ("projection-beta", "1"),
    ("client-part", 0),
    ("lost-gradients", 0),
    ("fine-tune-share", "0.1"),
    ("projection-variant", 0),
    ("projection-weighting", 1),
    ("projection-devaluation", "0"),
    ("projection-edge-boost", "4"),
    ("options", 1),
    ("out", 0),
    ("state-dir", 0),
    ("key-dir", 0),
    ("benchmark", 0),
    ("score-every", 1.5),
    ("seed", 0.0),
    ("seed", "0"),
]
BAD_VALUES = [
    ("text-length", 0),
    ("distribution", "uniformly"),
    *(("dirichlet-alpha", value) for value in (0, -1, NAN, INF)),
    *((key, value) for key in ("labels-per-client", "shards-per-client") for value in (0, -1)),
    ("distribution", "IID"),
    ("distribution", ""),
    ("client-norm", "batch"),
    ("client-sync", "hand-off"),
    ("splitfed-version", 0),
    ("slices", 0),
    ("server-slices", -1),
    ("score-every", -1),
    ("init-from", "SplitWiper"),
    ("init-from", ""),
    ("splitfed-version", 3),
    ("client-sync", ""),
    ("client-init", "same"),
    *(("label-mechanism", value) for value in ("", "rr", "RR-With-Prior")),
    *(("gradient-noise", value) for value in ("", "maxnorm", "iso")),
    *(
        (key, value)
        for key in ("label-epsilon", "gradient-noise-power")
        for value in (-1, -1e-9, NAN, INF)
    ),
    ("cache-codec", "int4"),
    ("cache-codec", "FLOAT32"),
    ("cache-every", 0),
    ("shares", "half"),
    ("client-part", "server"),
    ("lost-gradients", "next"),
    ("projection-variant", "proj-raw"),
    ("projection-weighting", "u"),
    *(("projection-beta", value) for value in (-0.1, 2.1, NAN)),
    *(("fine-tune-share", value) for value in (0, 0.0, 1.1, NAN)),
    *(("projection-devaluation", value) for value in (-0.1, 1.1, NAN)),
    *(("projection-edge-boost", value) for value in (0, -1.0, INF)),
    *((key, value) for key in ("pretrain-epochs", "seed") for value in (-1, -7)),
    *(("forget-client", value) for value in ("-1", "1.0", "0,", "0;2", "nobody", "")),
    *((key, -1) for key in ("samples", "test-samples", "shadow")),
    *(("shadow-share", value) for value in (-0.1, 1.0, NAN)),
    *(
        (key, value)
        for key in ("server-epochs", "batch-size", "threads", "fine-tune-epochs")
        for value in (0, -1)
    ),
    *((key, 0) for key in ("ascent-epochs", "distillation-epochs")),
    *(("distillation-alpha", value) for value in (-0.1, 1.1, NAN)),
    *(
        (key, value)
        for key in ("learning-rate", "bandwidth-mbps", "ascent-bound", "round-timeout")
        for value in (0, 0.0, -0.1, NAN, INF, -INF)
    ),
    *(
        (key, value)
        for key in ("weight-decay", "latency-ms", "server-num-cpus", "server-num-gpus")
        for value in (-1, -1e-9, NAN, INF, -INF)
    ),
    ("server-num-gpus", 1.5),
    *(("precision", value) for value in ("", "float16", "Float32", "bf16", "double")),
    *(("codec", value) for value in ("", "int8", "Float16", "fp16", "double")),
    *(("momentum", value) for value in (-0.1, 1, 1.0, 2, NAN, INF)),
    *(("upload-chunk-mb", value) for value in (0, -1.0, 1000.1, NAN, INF)),
    *(("epsilon", value) for value in ("0", "-1", "nan", "inf", "some", "")),
    *(("delta", value) for value in (0.0, 1.0, -0.1, NAN)),
    *(("clip", value) for value in (0.0, -1.0, NAN, INF)),
    *(
        (key, value)
        for key in ("consensus-add", "consensus-finish")
        for value in (0.0, -0.1, 1.1, NAN)
    ),
    *((key, 0) for key in ("consensus-most", "consensus-rounds")),
    ("copies", "some"),
    ("mechanism", "uniform"),
    ("privacy-unit", "client"),
    ("secrets", "file"),
    *(("pretrained", value) for value in ("./minilm", "../minilm", "~/minilm", "a/b/c", "-", "a/")),
]
# Refused by `check`: names that nothing stands for, texts that do not parse, and what is not
# possible alone.
BAD_TEXTS = [
    ("strategy", "splitwipe"),
    ("strategy", ""),
    ("strategy", "no_such_package:Strategy"),
    ("strategy", "json:JSONDecoder"),
    ("unlearning", "forgetting"),
    ("unlearning", "no_such_package:Method"),
    ("model", "cnm"),
    ("model", "split_unlearning.models.cnn:cmm"),
    ("model", "torchvision:resnet"),
    ("model", "torchvision:"),
    ("forget", "bird"),
    ("forget", "samples:2@class:2"),
    ("forget", "ids:relative.txt"),
    ("stable-clients", "1,1"),
    ("stable-clients", "2,1"),
    ("stable-clients", "0;1"),
    ("stable-clients", "0,,1"),
    ("options", "a"),
    ("options", "a=1 b"),
    ("options", "=1"),
    ("options", "a = 1"),
    ("options", "a='1"),
    ("data-dir", "data"),
    ("data-dir", "~/data"),
    ("out", "results"),
    ("out", "./results"),
    ("out", "~/results"),
    ("out", "/results/result.json"),
    *((key, "./folder") for key in ("state-dir", "key-dir", "benchmark")),
    *(("state-dir", value) for value in ("state", "~/state")),
    ("verify", True),
    ("audit", True),
    ("keep-models", True),
    ("backdoor", "3"),
    ("shadow", 1),
    *(("expansion", value) for value in ("0", "3-1", "1.5", "-2", "many", "")),
]


def test_every_key_is_in_a_table_of_what_is_refused():
    assert {key for key, _ in BAD_TYPES} == set(KEYS)
    # A data set is looked up when it is loaded, a cut when the model is built;
    # true and false are both possible.
    expected = set(KEYS) - {"attacks", "cut", "dataset", "download", "overwrite", "skip-absent"}
    assert {key for key, _ in [*BAD_VALUES, *BAD_TEXTS]} == expected


@pytest.mark.parametrize(("key", "value"), [*BAD_TYPES, *BAD_VALUES])
def test_a_wrong_type_or_value_is_refused(key, value):
    message = refusal(RunConfig.from_mapping, {key: value})
    # An integer is read as a number where the key is one.
    shown = [value, float(value)] if type(value) is int else [value]
    assert any(message.startswith(f"{key}={one!r} ") for one in shown)
    assert declared()[key].allowed in message


@pytest.mark.parametrize(("key", "value"), BAD_TEXTS)
def test_a_text_that_stands_for_nothing_is_refused(key, value):
    config = RunConfig.from_mapping({key: value})
    message = refusal(config.check)
    assert message.startswith(f"{key}={value!r} ")


@pytest.mark.parametrize(("key", "name"), [("strategy", "vanilla"), ("model", "vgg")])
def test_an_unknown_name_lists_the_known_ones(key, name):
    assert name in refusal(RunConfig.from_mapping({key: "nothing"}).check)


def test_an_unknown_distribution_lists_the_known_ones():
    message = refusal(RunConfig.from_mapping, {"distribution": "nothing"})
    assert all(name in message for name in DISTRIBUTIONS.names())


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("batchsize", "batch-size"),
        ("batch_size", "batch-size"),
        ("learning-rat", "learning-rate"),
        ("Seed", "seed"),
        ("server-epoch", "server-epochs"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_is_near(key, meant):
    message = refusal(RunConfig.from_mapping, {"seed": 1, key: 8})
    assert message == f"{key}=8 is not a run-config key; did you mean {meant}?"


def test_an_unknown_key_that_is_near_nothing_is_refused_with_all_keys():
    message = refusal(RunConfig.from_mapping, {"zzz": 8})
    assert message == f"zzz=8 is not a run-config key; known keys: {', '.join(KEYS)}"


@pytest.mark.parametrize("key", ["seed", "batch-size", "learning-rate"])
def test_an_integer_beyond_every_number_is_refused(key):
    assert key in refusal(RunConfig.from_mapping, {key: 10**400})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strategy", "vanilla"),
        ("model", "vgg"),
        ("model", "split_unlearning.models.vgg:vgg"),
        ("dataset", "npz:/data/birds.npz"),
        *(("distribution", name) for name in DISTRIBUTIONS.names()),
        ("forget", ""),
        ("forget", "class:bird;client:1;samples:0.5@class:2;ids:/data/ids.txt"),
        ("forget-client", "4"),
        ("forget-client", "0,2,5"),
        ("forget-client", "all"),
        ("pretrain-epochs", 0),
        ("server-epochs", 1),
        ("batch-size", 1),
        ("learning-rate", 1e-9),
        ("learning-rate", 3.0),
        ("momentum", 0.0),
        ("momentum", 0.999),
        ("weight-decay", 0.0),
        ("weight-decay", 0.1),
        ("client-sync", "none"),
        ("client-init", "shared"),
        ("bandwidth-mbps", 0.1),
        ("latency-ms", 25.5),
        ("upload-chunk-mb", 0.001),
        ("upload-chunk-mb", 1000.0),
        ("server-num-cpus", 0.5),
        ("server-num-gpus", 0.25),
        ("server-num-gpus", 3),
        ("threads", 2),
        ("precision", "float32"),
        ("precision", "bfloat16"),
        ("codec", "float32"),
        ("codec", "float16"),
        ("codec", "bfloat16"),
        ("options", ""),
        ("out", "/tmp/results"),
        ("state-dir", "/tmp/state"),
        ("seed", 2**63 - 1),
    ],
)
def test_a_possible_value_is_taken(key, value):
    config = RunConfig.from_mapping({key: value})
    config.check()
    assert config.as_mapping() == {**RunConfig().as_mapping(), key: value}


def test_a_key_that_means_nothing_to_the_strategy_is_not_silently_taken():
    handoff = {"client-sync": "handoff"}
    RunConfig.from_mapping({"strategy": "vanilla", **handoff}).check()
    RunConfig.from_mapping({"ascent-epochs": 2, "unlearning": "gradient-ascent"}).check()
    for chosen, named in (
        (handoff, "client-sync='handoff'"),
        ({"init-from": "splitwiper"}, "init-from='splitwiper'"),
        ({"skip-absent": True, "strategy": "splitfed"}, "skip-absent=True"),
        ({"ascent-epochs": 2}, "ascent-epochs=2"),
        ({"ascent-epochs": 2, "unlearning": "fine-tune"}, "ascent-epochs=2"),
    ):
        with pytest.raises(UserError, match=f"^{named} is not possible; .*strategy=.* ignore it"):
            RunConfig.from_mapping(chosen).check()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"label-epsilon": 1},
            "label-epsilon=1.0 is not possible; allowed: 0 (without a label-mechanism)",
        ),
        (
            {"label-mechanism": "rr-with-prior"},
            "label-epsilon=0.0 is not possible; allowed: a number > 0 "
            "(with label-mechanism='rr-with-prior')",
        ),
        (
            {"gradient-noise-power": 1},
            "gradient-noise-power=1.0 is not possible; allowed: 0 (without "
            "gradient-noise='marvell')",
        ),
        (
            {"gradient-noise": "marvell"},
            "gradient-noise-power=0.0 is not possible; allowed: a number > 0 "
            "(with gradient-noise='marvell')",
        ),
        (
            {"gradient-noise": "max-norm", "gradient-noise-power": 1},
            "gradient-noise-power=1.0 is not possible; allowed: 0 "
            "(gradient-noise='max-norm' follows from the batch alone)",
        ),
        (
            {
                "gradient-noise": "marvell",
                "gradient-noise-power": 1,
                "unlearning": "distillation",
            },
            "gradient-noise='marvell' is not possible; allowed: none, max-norm "
            "(unlearning='distillation' sends no labels)",
        ),
    ],
)
def test_a_protection_of_labels_that_lacks_something_or_has_no_effect_is_refused(chosen, message):
    assert refusal(RunConfig.from_mapping({"strategy": "vanilla", **chosen}).check) == message


@pytest.mark.parametrize("key", ["precision", "codec"])
@pytest.mark.parametrize("unlearning", ["gradient-projection", "gradient-projection-paper"])
def test_gradients_that_are_taken_apart_are_those_of_float32(unlearning, key):
    chosen = {"strategy": "gradient-projection", key: "bfloat16"}
    RunConfig.from_mapping({**chosen, "unlearning": "retrain"}).check()
    message = refusal(RunConfig.from_mapping({**chosen, "unlearning": unlearning}).check)
    assert message == (
        f"{key}='bfloat16' is not possible; allowed: float32 "
        f"(unlearning={unlearning!r} takes gradients apart)"
    )


@pytest.mark.parametrize("strategy", ["splitwiper", "splitfed", "u-shaped"])
@pytest.mark.parametrize(
    "chosen",
    [
        {"label-mechanism": "rr-with-prior", "label-epsilon": 1.0},
        {"gradient-noise": "max-norm"},
        {"gradient-noise": "marvell", "gradient-noise-power": 1.0},
    ],
)
def test_a_protection_of_labels_is_refused_by_strategies_that_have_none(strategy, chosen):
    RunConfig.from_mapping({"strategy": "vanilla", **chosen}).check()
    message = refusal(RunConfig.from_mapping({"strategy": strategy, **chosen}).check)
    key, value = next(iter(chosen.items()))
    assert message.startswith(f"{key}={value!r} is not possible; allowed: 'none' (strategy=")


def test_what_does_not_go_with_a_state_dir_is_refused():
    kept = {"state-dir": "/tmp/state"}
    RunConfig.from_mapping({**kept, "verify": True}).check()
    absent = {"strategy": "vanilla", "skip-absent": True}
    RunConfig.from_mapping(absent).check()
    message = refusal(RunConfig.from_mapping(kept | absent).check)
    assert message.startswith("skip-absent=True is not possible; allowed: false (with state-dir")
    projection = {"strategy": "gradient-projection", "unlearning": "gradient-projection"}
    RunConfig.from_mapping(kept | projection).check()
    paper = projection | {"unlearning": "gradient-projection-paper"}
    RunConfig.from_mapping(paper).check()
    message = refusal(RunConfig.from_mapping(kept | paper).check)
    assert message == (
        "state-dir='/tmp/state' is not possible; allowed: empty "
        "(unlearning='gradient-projection-paper' keeps what it needs for one run only)"
    )


def test_keys_lie_outside_the_state_dir_that_they_seal():
    RunConfig.from_mapping({"state-dir": "/tmp/state", "key-dir": "/tmp/keys"}).check()
    for chosen in ({}, {"state-dir": "/tmp/keys"}, {"state-dir": "/tmp"}):
        message = refusal(RunConfig.from_mapping({**chosen, "key-dir": "/tmp/keys"}).check)
        assert message.startswith("key-dir='/tmp/keys' is not possible; allowed: ")


def test_what_gradient_projection_cannot_do_is_refused():
    projection = {"strategy": "gradient-projection", "unlearning": "gradient-projection"}
    for chosen, line in (
        ({"cache-every": 2}, "cache-every=2 is not possible; allowed: 1 (shares='recompute'"),
        ({"client-part": "local"}, "client-part='local' is not possible; allowed: chain (shares"),
        (
            {"cache-codec": "sketch"},
            "cache-codec='sketch' is not possible; allowed: float32, float",
        ),
        ({"skip-absent": True}, "skip-absent=True is not possible; allowed: False"),
        ({"init-from": "splitwiper"}, "init-from='splitwiper' is not possible; allowed: 'fresh'"),
        ({"projection-variant": "gs"}, "projection-variant='gs' is not possible; allowed: 'raw'"),
        (
            {"strategy": "vanilla", "skip-absent": True},
            "skip-absent=True is not possible; allowed: False (strategy='vanilla' and unlearning=",
        ),
        ({"strategy": "u-shaped"}, "unlearning='gradient-projection' is not possible; allowed: "),
    ):
        message = refusal(RunConfig.from_mapping(projection | chosen).check)
        assert message.startswith(line)
    whole = {"shares": "whole", "cache-every": 2, "client-part": "local", "cache-codec": "sketch"}
    RunConfig.from_mapping(projection | whole).check()


def test_a_method_that_the_strategy_cannot_do_is_refused_by_name():
    with patch.dict(METHODS._built_in, {"wish": UnlearningMethod}):
        config = RunConfig.from_mapping({"unlearning": "wish"})
        with pytest.raises(UserError, match=r"unlearning='wish' .*retrain .*splitwiper"):
            config.check()


@pytest.mark.parametrize(
    "key",
    # No integer is between 0 and 1.
    [key for key in KEYS if type(RunConfig().as_mapping()[key]) is float and key != "delta"],
)
def test_an_integer_stands_for_a_number(key):
    value = 0 if key in ("momentum", "shadow-share") else 1
    taken = RunConfig.from_mapping({key: value}).as_mapping()[key]
    assert (type(taken), taken) == (float, value)


def test_a_number_stands_for_a_text_where_both_are_possible():
    for value, text in ((3, "3"), ("1-3", "1-3")):
        assert RunConfig.from_mapping({"expansion": value}).own["expansion"] == text
    for value, text in ((8, "8"), (0.5, "0.5"), ("none", "none")):
        assert RunConfig.from_mapping({"epsilon": value}).own["epsilon"] == text


def test_a_config_cannot_be_changed_and_is_a_key():
    config = RunConfig()
    with pytest.raises(AttributeError):
        config.seed = 3
    assert {config: 1}[RunConfig()] == 1


@settings(deadline=None, max_examples=50)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "distribution": st.sampled_from(DISTRIBUTIONS.names()),
            "forget": st.text(max_size=10),
            "seed": st.integers(0, 2**63 - 1),
            "batch-size": st.integers(1, 10**6),
            "learning-rate": st.floats(0, 1e6, exclude_min=True),
            "momentum": st.floats(0, 1, exclude_max=True),
            "upload-chunk-mb": st.floats(0, 1000, exclude_min=True),
            "server-num-gpus": st.sampled_from([0.0, 0.25, 1.0, 4.0]),
            "options": st.text(max_size=10),
            "out": st.text(max_size=10),
            "state-dir": st.text(max_size=10),
            "verify": st.booleans(),
        },
    )
)
def test_a_config_survives_as_a_mapping(values):
    config = RunConfig.from_mapping(values)
    mapping = config.as_mapping()
    assert mapping == {**RunConfig().as_mapping(), **values}
    assert list(mapping) == KEYS
    assert RunConfig.from_mapping(mapping) == config


def test_the_training_settings_are_those_of_the_config():
    values = {
        "seed": 3,
        "batch-size": 5,
        "learning-rate": 0.7,
        "momentum": 0.6,
        "weight-decay": 0.01,
        "pretrain-epochs": 11,
        "server-epochs": 13,
        "threads": 2,
        "codec": "float16",
    }
    expected = {key.replace("-", "_"): value for key, value in values.items()}
    assert RunConfig.from_mapping(values).training() == TrainingSettings(**expected)
    assert {one.name for one in fields(TrainingSettings)} == set(expected)


def test_requests_are_asked_by_the_client_that_the_config_names():
    config = RunConfig.from_mapping({"forget": "class:bird;client:1", "forget-client": 2})
    assert [(one.text, one.client) for one in config.requests()] == [
        ("class:bird", 2),
        ("client:1", 1),
    ]


@pytest.mark.parametrize(
    ("given", "clients"), [("0,2,5", (0, 2, 5)), (" 5, 0,2", (0, 2, 5)), ("all", ())]
)
def test_several_clients_ask_for_a_label_and_each_for_itself_alone(given, clients):
    config = RunConfig.from_mapping(
        {"forget": "samples:0.5@class:3;client:1"} | {"forget-client": given}
    )
    several, one = config.requests()
    assert (several.client, several.clients) == (None, clients)
    assert (one.client, one.clients) == (1, ())
    assert config.asking == ("all" if given == "all" else "0,2,5")
    # What each is sent does not tell whether others ask.
    alone = parse_requests("samples:0.5@class:3", 2)[0]
    assert several.meant_for(2, np.arange(3)).to_field() == alone.to_field()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("seed=3", "seed", 3),
        (" seed = 3 ", "seed", 3),
        ("seed=-3", "seed", -3),
        ("learning-rate=1", "learning-rate", 1.0),
        ("learning-rate=1e-3", "learning-rate", 1e-3),
        ("strategy=vanilla", "strategy", "vanilla"),
        ("dataset=1", "dataset", "1"),
        ("forget=", "forget", ""),
        ("forget=samples:0.5@class:2;class:3", "forget", "samples:0.5@class:2;class:3"),
        ("options=a=1 b=2", "options", "a=1 b=2"),
        ("unheard-of=3", "unheard-of", "3"),
        ("=3", "", "3"),
    ],
)
def test_a_setting_is_read_as_its_keys_type(text, name, value):
    found = parse_setting(text)
    assert found == (name, value)
    assert type(found[1]) is type(value)


@pytest.mark.parametrize("text", ["", "seed", "vanilla", "--seed 3"])
def test_a_setting_without_an_equals_sign_is_refused(text):
    assert refusal(parse_setting, text) == f"--set={text!r} is not possible; allowed: key=value"


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("seed", ""),
        ("seed", "one"),
        ("seed", "1.0"),
        ("batch-size", "1e3"),
        ("learning-rate", "fast"),
        ("learning-rate", "0,1"),
    ],
)
def test_a_setting_that_is_no_number_is_refused_with_what_is_allowed(key, raw):
    message = refusal(parse_setting, f"{key}={raw}")
    assert message.startswith(f"{key}={raw!r} is not possible; allowed: ")


@pytest.mark.parametrize("key", KEYS)
def test_every_default_can_be_set_as_text(key):
    value = RunConfig().as_mapping()[key]
    assert parse_setting(f"{key}={value}") == (key, value)


def test_a_setting_that_its_owner_declares_is_known_everywhere(monkeypatch):
    option = positive(3, "years of patience")
    own = {**FineTuning.own_options, "patience": option}
    monkeypatch.setattr(FineTuning, "own_options", own)
    chosen = dict([parse_setting("unlearning=fine-tune"), parse_setting("patience=5")])
    config = RunConfig.from_mapping({"strategy": "vanilla", **chosen})
    config.check()
    assert config.method().options.integer("patience") == 5
    assert config.as_mapping()["patience"] == 5
    assert refusal(RunConfig.from_mapping, {"patience": 0}) == (
        "patience=0 is not possible; allowed: an integer >= 1"
    )
    message = refusal(RunConfig.from_mapping({"patience": 5}).check)
    assert message.startswith("patience=5 is not possible; allowed: 3 (strategy='splitwiper'")
    assert by_owner()["fine-tune"]["patience"] == option
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert "patience = 3" in table(RunConfig().as_mapping())
    assert table(RunConfig().as_mapping()) not in text
