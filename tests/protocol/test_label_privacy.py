"""Vanilla with labels that are told by randomised response, and with noise on the gradients."""

from collections import Counter, defaultdict
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from split_unlearning.clients.vanilla import VanillaClient
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import build_segment
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.strategies.server.gradient_noise import GradientNoise
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.unlearning.exactness import order
from tests.local_grid import LocalRun, dealt
from tests.protocol.test_vanilla import same_bits

ROOT = Path(__file__).parents[2]
SHORT = {"strategy": "vanilla", "pretrain_epochs": 2, "server_epochs": 2, "batch_size": 64}
TOLD = {"label_mechanism": "rr-with-prior", "label_epsilon": 2.0}
MARVELL = {"gradient_noise": "marvell", "gradient_noise_power": 0.5}


class Watched(LocalRun):
    """A run, and every frame that reached the server: by phase, what came and what went back."""

    def __init__(self, clients, **settings):
        self.frames = defaultdict(list)
        answer = ServerLink.answer

        def seen(link, caller, tensors, fields):
            reply = answer(link, caller, tensors, fields)
            self.frames[caller.phase].append((caller.client, tensors, reply[0]))
            return reply

        with patch.object(ServerLink, "answer", seen):
            super().__init__(clients, **{**SHORT, **settings})

    def labels(self, phase):
        """The labels that a client sent in a phase, in order."""
        sent = defaultdict(list)
        for client, tensors, _ in self.frames[phase]:
            sent[client].append(tensors["labels"])
        return {client: torch.cat(labels).numpy() for client, labels in sent.items()}

    def visited(self, client, epoch, gone=(), stage="train"):
        """The ids that a client visits in an epoch, in order."""
        ids = np.setdiff1d(self.prepared.plan.train[client], gone)
        seed = derive_seed(0, "order", stage, client, epoch)
        return ids[order(ids, seed)]


@pytest.fixture(scope="module")
def told():
    return Watched(3, distribution="iid", forget="class:2;client:1", **TOLD)


def by_id(run, phase, client, epochs=2, **visited):
    """What a client told of each sample, time after time."""
    heard = defaultdict(list)
    sent = iter(run.labels(phase)[client])
    for epoch in range(epochs):
        for sample in run.visited(client, epoch, **visited):
            heard[int(sample)].append(int(next(sent)))
    assert next(sent, None) is None
    return heard


def test_labels_on_the_wire_are_told_by_the_mechanism(told):
    true, answers = told.prepared.dataset.y_train, Counter()
    for client in range(3):
        for sample, labels in by_id(told, "learn", client).items():
            answers[int(true[sample]), labels[0]] += 1
    whole = np.exp(2.0) + 9
    counts = np.array([[answers[label, other] for other in range(10)] for label in range(10)])
    kept = np.trace(counts)
    expected = np.array([np.exp(2.0), 9.0]) / whole * counts.sum()
    assert chisquare([kept, counts.sum() - kept], expected).pvalue > 0.01
    # And whoever is told otherwise is told any other label.
    otherwise = counts.sum(axis=0) - np.diag(counts)
    weights = (counts.sum() - counts.sum(axis=1)) / (9 * counts.sum()) * otherwise.sum()
    assert chisquare(otherwise, weights).pvalue > 0.01


def test_a_label_is_told_alike_in_every_epoch_and_every_retraining(told):
    first = {client: by_id(told, "learn", client) for client in range(3)}
    for heard in first.values():
        assert all(len(labels) == 2 and len(set(labels)) == 1 for labels in heard.values())
    true, gone = told.prepared.dataset.y_train, told.prepared.plan.train[1]
    twos = np.flatnonzero(true == 2)
    # Client 0 is asked first, to forget a label; then client 1, to forget all that it has.
    sent = {client: list(labels) for client, labels in told.labels("unlearn").items()}
    for client in (0, 2):
        left_out = twos if client == 0 else gone
        for _ in told.prepared.forgettings:
            for epoch in range(2):
                for sample in told.visited(client, epoch, gone=left_out):
                    assert sent[client].pop(0) == first[client][int(sample)][0]
        assert sent[client] == []


def test_the_same_config_tells_the_same_and_ends_the_same(told):
    again = Watched(3, distribution="iid", forget="class:2;client:1", **TOLD)
    assert [one["digests"] for one in again.phases] == [one["digests"] for one in told.phases]
    other = Watched(3, distribution="iid", forget="", seed=1, **TOLD)
    assert other.phases[0]["digests"] != told.phases[0]["digests"]


@pytest.mark.parametrize("protection", [TOLD, MARVELL, {"gradient_noise": "max-norm"}])
def test_forgetting_still_equals_training_without_the_forgotten_samples(protection):
    run = LocalRun(3, **SHORT, distribution="iid", forget="samples:0.5@class:3", **protection)
    (forgetting,) = run.prepared.forgettings
    left = tuple(
        np.setdiff1d(ids, forgetting.samples.get(client, []))
        for client, ids in enumerate(run.prepared.plan.train)
    )
    with dealt(run.prepared.dataset, Plan(left, run.prepared.plan.test)):
        reference = LocalRun(3, **SHORT, distribution="iid", forget="", **protection)
    assert run.digests == reference.digests


def test_what_leaves_a_client_in_training_follows_from_the_told_labels_alone(told):
    """Were the told labels the true ones, nothing would change, pre-training included."""
    settings = {"distribution": "iid", "forget": "", "init_from": "splitwiper"}
    private = LocalRun(3, **SHORT, **settings, **TOLD)
    labels = np.array(told.prepared.dataset.y_train)
    for client in range(3):
        for sample, heard in by_id(told, "learn", client).items():
            labels[sample] = heard[0]
    dataset = told.prepared.dataset
    relabelled = type(dataset)(**{**vars(dataset), "y_train": labels})
    with dealt(relabelled, private.prepared.plan):
        public = LocalRun(3, **SHORT, **settings)
    assert private.digests == public.digests
    # So are the scores: they go by the labels of the test splits, which are as they were.
    assert private.phases[0]["accuracy"] == public.phases[0]["accuracy"]


METHODS = {
    "fine-tune": {"fine_tune_epochs": 1},
    "gradient-ascent": {"ascent_epochs": 1, "fine_tune_epochs": 1},
    "distillation": {"distillation_epochs": 1},
    "none": {},
}


@pytest.mark.parametrize("unlearning", METHODS)
def test_every_method_forgets_with_told_labels(unlearning):
    epochs = METHODS[unlearning]
    run = Watched(2, distribution="iid", unlearning=unlearning, forget="class:2", **epochs, **TOLD)
    true = run.prepared.dataset.y_train
    first = {client: by_id(run, "learn", client) for client in (0, 1)}
    assert any(labels[0] != true[sample] for sample, labels in first[0].items())
    if unlearning == "gradient-ascent":
        ids = run.prepared.forgettings[0].samples[0]
        sent = torch.cat([tensors["labels"] for _, tensors, _ in run.frames["unlearn"]])
        visited = ids[order(ids, derive_seed(0, "order", "ascent", 0, 0))]
        assert sent[: len(ids)].tolist() == [first[0][int(sample)][0] for sample in visited]
    assert run.phases[-1]["samples"] == int((true[run.prepared.plan.train[0]] == 2).sum())


def test_the_result_says_what_is_guaranteed_and_a_retraining_spends_nothing(told):
    assert len(told.phases) == 3
    for phase in told.phases:
        said = phase["privacy"]
        assert said["unit"] == "one train record's label"
        assert said["epsilon_per_release"] == said["epsilon"] == 2.0
        assert said["releases"] == 1
        assert said["delta"] == said["delta_per_release"] == 0.0
        assert any("request that names a label" in line for line in said["does_not_cover"])
        assert any("seed" in line for line in said["does_not_cover"])


def test_without_a_guarantee_the_result_says_none():
    run = LocalRun(2, **SHORT, distribution="iid", forget="", **MARVELL)
    assert run.phases[0]["privacy"] is None


def test_a_huge_epsilon_changes_nothing():
    run = LocalRun(2, **SHORT, distribution="iid", forget="", label_mechanism="rr-with-prior",
                   label_epsilon=50.0)  # fmt: skip
    plain = LocalRun(2, **SHORT, distribution="iid", forget="")
    assert run.digests == plain.digests
    assert run.phases[0]["accuracy"] == plain.phases[0]["accuracy"]


# Noise on the gradients.


@pytest.mark.parametrize("noise", [{"gradient_noise": "max-norm"}, MARVELL])
def test_the_noise_is_added_to_what_the_client_gets_and_to_nothing_else(noise):
    """One step, against plain PyTorch: the server's weights as without, the client's with noise."""
    settings = {"distribution": "iid", "forget": "", "server_epochs": 1, "batch_size": 2000}
    run = Watched(1, **settings, **noise)
    plain = Watched(1, **settings)
    assert same_bits(run.server_state, plain.server_state)
    ((_, sent, reply),), ((_, _, without),) = run.frames["learn"], plain.frames["learn"]
    kind, power = noise["gradient_noise"], noise.get("gradient_noise_power", 0.0)
    seed = derive_seed(0, "cut-gradient-noise", "train", 0, 1)
    expected = GradientNoise(kind, power).added_to(without["gradient"], sent["labels"], seed)
    assert torch.equal(reply["gradient"], expected)
    assert not torch.equal(reply["gradient"], without["gradient"])
    data = run.prepared.dataset
    shape = ("cnn", data.input_shape, data.num_classes)
    segment = build_segment("client", *shape, derive_seed(0, "client-segment", 0))
    steps = torch.optim.SGD(segment.parameters(), lr=0.1)
    x, _ = data.train(run.visited(0, 0))
    segment(x).backward(reply["gradient"])
    steps.step()
    assert same_bits(run.client_state(0), segment.state_dict())


def test_noise_is_drawn_anew_for_each_client_and_step():
    seeds = []
    added = GradientNoise.added_to

    def noted(noise, gradient, labels, seed):
        seeds.append(seed)
        return added(noise, gradient, labels, seed)

    with patch.object(GradientNoise, "added_to", noted):
        LocalRun(3, **SHORT, distribution="iid", forget="", gradient_noise="max-norm")
    assert len(set(seeds)) == len(seeds) > 40


@pytest.mark.parametrize(
    ("unlearning", "noise"),
    [
        ({"unlearning": "gradient-ascent", "ascent_epochs": 1, "fine_tune_epochs": 1}, MARVELL),
        ({"unlearning": "distillation", "distillation_epochs": 1}, {"gradient_noise": "max-norm"}),
    ],
)
def test_methods_in_stages_go_on_with_noise(unlearning, noise):
    settings = {**SHORT, "server_epochs": 1, "distribution": "iid", "forget": "class:2"}
    one, other = (LocalRun(2, **settings, **unlearning, **noise) for _ in range(2))
    assert one.digests == other.digests
    assert one.digests["clients"] != LocalRun(2, **settings, **unlearning).digests["clients"]


def test_a_client_that_tells_something_else_than_labels_is_refused():
    honest = VanillaClient.visit

    def liar(client, *arguments):
        for x, batch in honest(client, *arguments):
            batch.labels[0] = 10
            yield x, batch

    with (
        patch.object(VanillaClient, "visit", liar),
        pytest.raises(RuntimeError, match=r"labels are outside 0\.\.9"),
    ):
        LocalRun(2, **SHORT, distribution="iid", forget="", **TOLD)
