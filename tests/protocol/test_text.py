"""Every kind of protocol learns and forgets texts, with a small random BERT."""

import pytest
import torch

from split_unlearning.evaluation.outputs import FILE, read_outputs
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import build_segment
from split_unlearning.simulations.data.tokenizer import Tokens
from tests.local_grid import LocalRun
from tests.protocol.test_audit import check_is_about
from tests.protocol.test_splitwiper import trained_without_what
from tests.protocol.test_vanilla import SEED, same_bits, unsplit
from tests.texts import SHORT, few_texts

pytest.importorskip("transformers", reason="the extra [text] is not installed")


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    return few_texts(tmp_path_factory.mktemp("texts") / "topics.npz")


def run(topics, clients=2, **changed):
    return LocalRun(clients, **{**SHORT, "dataset": topics, **changed})


EXACT = [
    {},
    {"codec": "float16"},
    {"precision": "bfloat16"},
    {"slices": 2},
    {"server_slices": 2, "codec": "bfloat16"},
    {"cut": "embeddings", "distribution": "dirichlet"},
    {"strategy": "gradient-projection"},
    {"strategy": "vanilla", "client_sync": "handoff", "init_from": "splitwiper"},
    {"strategy": "vanilla", "label_mechanism": "rr-with-prior", "label_epsilon": 2.0},
    {"strategy": "vanilla", "gradient_noise": "marvell", "gradient_noise_power": 4.0},
    {"strategy": "u-shaped", "codec": "float16", "precision": "bfloat16"},
    {"strategy": "splitfed", "precision": "bfloat16", "codec": "float16"},
]


@pytest.mark.parametrize("chosen", EXACT, ids=lambda one: "-".join(map(str, one.values())))
def test_forgetting_texts_by_retraining_is_exact(topics, chosen):
    forgot = run(topics, forget="samples:0.5@class:sport", **chosen)
    assert forgot.digests != forgot.phases[0]["digests"]
    assert trained_without_what(forgot).digests == forgot.digests


def test_one_client_equals_the_unsplit_bert(topics):
    learned = run(topics, clients=1, strategy="vanilla", forget="", seed=SEED, learning_rate=0.05)
    client, server = unsplit("bert", topics, 2, 8, tokens=Tokens(8), lr=0.05)
    assert same_bits(learned.client_state(0), client)
    assert same_bits(learned.server_state, server)


@pytest.mark.parametrize(
    ("strategy", "unlearning", "epochs"),
    [
        ("splitwiper", "gradient-ascent", {"ascent_epochs": 1, "fine_tune_epochs": 1}),
        ("splitwiper", "distillation", {"distillation_epochs": 1}),
        ("splitwiper-plus", "fine-tune", {"fine_tune_epochs": 1}),
        ("vanilla", "gradient-ascent", {"ascent_epochs": 1, "fine_tune_epochs": 1}),
        ("vanilla", "distillation", {"distillation_epochs": 1}),
        ("u-shaped", "distillation", {"distillation_epochs": 1}),
        ("splitfed", "fine-tune", {"fine_tune_epochs": 1}),
    ],
)
def test_methods_in_stages_go_on_with_texts(topics, strategy, unlearning, epochs):
    settings = {"strategy": strategy, "unlearning": unlearning, **epochs}
    first, again = (run(topics, **settings) for _ in range(2))
    learned, after = (phase["digests"] for phase in first.phases)
    assert learned["clients"]["0"] != after["clients"]["0"]
    assert learned["server"] != after["server"]
    assert again.digests == after


PROJECTION = {"strategy": "gradient-projection", "momentum": 0.5, "learning_rate": 0.05, "seed": 2}


@pytest.mark.parametrize(
    ("method", "client_sync"),
    [("gradient-projection", "handoff"), ("gradient-projection-paper", "none")],
)
def test_texts_are_projected_out(topics, method, client_sync):
    settings = {**PROJECTION, "client_sync": client_sync, "forget": "samples:0.5@class:sport"}
    forgot = run(topics, **settings, unlearning=method)
    learned, after = (phase["digests"] for phase in forgot.phases)
    assert learned["server"] != after["server"]
    assert learned == run(topics, **{**settings, "strategy": "vanilla", "forget": ""}).digests


def test_a_client_whose_texts_are_all_projected_out_goes_back_to_what_it_began_with(topics):
    forgot = run(topics, **PROJECTION, unlearning="gradient-projection", forget="client:1")
    began = build_segment("client", "bert", (8,), 3, derive_seed(2, "client-segment", 1))
    for name, weight in began.state_dict().items():
        torch.testing.assert_close(forgot.client_state(1)[name], weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strategy", ["u-shaped", "splitwiper", "splitwiper-plus"])
def test_an_audit_says_what_the_network_makes_of_each_text(topics, tmp_path, strategy):
    out = {"audit": True, "out": str(tmp_path)}
    audited = run(topics, strategy=strategy, clients=3, **out)
    check_is_about(audited, read_outputs(tmp_path / FILE))
    assert run(topics, strategy=strategy, clients=3).digests == audited.digests


def test_what_the_server_can_tell_of_masked_labels_is_measured(topics):
    settings = {"strategy": "splitwiper-plus", "copies": "replicate", "forget": ""}
    (learned,) = run(topics, attacks=True, **settings).phases
    scores = {one["name"]: one["perfect"] for one in learned["label_matching"]["attacks"]}
    assert scores[learned["label_matching"]["strongest"]] == max(scores.values())
    (plain,) = run(topics, **settings).phases
    assert plain["digests"] == learned["digests"]


@pytest.mark.parametrize("noise", [{}, {"epsilon": "8"}], ids=["plain", "noise"])
def test_masked_labels_of_texts_are_learned_and_forgotten(topics, noise):
    """Its exactness is under the same map, which a run without the label would not draw."""
    forgot, again = (run(topics, strategy="splitwiper-plus", **noise) for _ in range(2))
    assert forgot.digests == again.digests
    learned, after = (phase["digests"]["clients"] for phase in forgot.phases)
    assert [learned[client] != after[client] for client in sorted(learned)] == [True, False]


def test_texts_are_learned(topics):
    learned = run(topics, strategy="vanilla", forget="", server_epochs=15, learning_rate=0.2)
    accuracy = learned.phases[0]["accuracy"]
    assert accuracy["retained"] > 0.8


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "cnn"}, r"model='cnn' is not possible; allowed: bert.*texts of 8 tokens"),
        (
            {"dataset": "digits", "text_length": 64, "forget": "class:1"},
            r"model='bert' .*images of shape",
        ),
        ({"dataset": "digits", "model": "cnn", "forget": "class:1"}, r"text-length=8 .*images"),
        ({"text_length": 600}, "text-length=600"),
        ({"client_norm": "group"}, "client-norm='group' .*'bert' has no batch norm"),
        ({"backdoor": "tech", "audit": True, "out": "/tmp/out"}, "backdoor='tech' .*of pixels"),
    ],
)
def test_the_wrong_kind_is_refused_before_anything_starts(topics, changed, words):
    with pytest.raises(UserError, match=words):
        run(topics, **changed)
