"""SplitWiper+: what crosses the wire, what follows from it, and what is refused."""

import json
from functools import wraps
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from split_unlearning.clients.base import SplitClient
from split_unlearning.clients.label_privacy.consensus import Pool
from split_unlearning.clients.label_privacy.copies import Assignment
from split_unlearning.clients.label_privacy.label_map import Expansion, LabelMap
from split_unlearning.clients.label_privacy.masking import mask
from split_unlearning.clients.label_privacy.mechanism import Mechanism
from split_unlearning.clients.label_privacy.sealing import SEALED_BYTES, unseal
from split_unlearning.clients.label_privacy.secrets import derive_key
from split_unlearning.clients.splitwiper_plus import SplitWiperPlusClient
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import build_segment, segment_with
from split_unlearning.simulations.client_app import ContextStore
from split_unlearning.simulations.config import RunConfig
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.unlearning.activation_cache import epoch_order
from split_unlearning.unlearning.exactness import batches, digest
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.local_grid import LocalRun, client_of, node_of

SHORT = {"strategy": "splitwiper-plus", "pretrain_epochs": 1, "server_epochs": 1}


def kept(run, client, name):
    """What a client keeps under a name, which only it may read."""
    return TensorStore(ContextStore(run.grid.contexts[node_of(client)])).load(name)


def label_map(run, client=0):
    agreement = kept(run, client, "agreement")
    expansion = Expansion.parse(run.prepared.config.own["expansion"])
    secret = agreement["secret"].numpy().tobytes()
    return LabelMap.drawn(tuple(agreement["labels"].tolist()), expansion, secret)


def crossed(run, action):
    """Yield the client, the question and the answer of each message of an action, as bytes."""
    for node_id, question, answer in run.grid.sent:
        for fields in question.config_records.values():
            if fields.get("action") == action:
                yield client_of(node_id), tensors_in(question), tensors_in(answer), fields


def tensors_in(content):
    return [array.numpy() for record in content.array_records.values() for array in record.values()]


class Cached:
    """What the server segment is given to cache, in the order in which it comes."""

    def __init__(self):
        self.chunks = []
        add = Shards.add

        @wraps(add)
        def noted(shards, client, chunk, smashed, labels, ids):
            self.chunks.append((client, smashed.copy(), labels.copy(), ids.copy()))
            return add(shards, client, chunk, smashed, labels, ids)

        self.patch = patch.object(Shards, "add", noted)


def cached_run(**settings):
    """A run, and what each client uploaded while learning."""
    cached = Cached()
    with cached.patch:
        run = LocalRun(5, forget="", **{**SHORT, **settings})
    uploads = {}
    for client, *parts in cached.chunks:
        before = uploads.get(client, [[], [], []])
        uploads[client] = [[*old, new] for old, new in zip(before, parts, strict=True)]
    joined = {client: [np.concatenate(part) for part in parts] for client, parts in uploads.items()}
    return run, joined


@pytest.fixture(scope="module")
def plain():
    return cached_run(strategy="splitwiper")


@pytest.fixture(scope="module", params=["partial-overlap", "heterogeneous-labels"])
def run(request):
    return LocalRun(5, distribution=request.param, forget="class:2", secrets="drawn", **SHORT)


# Label consensus.


def test_all_clients_agree_on_all_labels_and_on_one_map(run):
    labels = set(run.prepared.dataset.y_train.tolist())
    maps = [label_map(run, client) for client in range(5)]
    assert set(maps[0].labels) == labels
    assert all(one == maps[0] for one in maps)
    assert maps[0].num_masked == 3 * len(labels)


def test_the_pool_is_sealed_always_as_long_and_never_the_same(run):
    pools = [answer[0] for _, _, answer, _ in crossed(run, "add-to-pool")]
    assert len(pools) >= 2 * 5
    secret = kept(run, 0, "agreement")["secret"].numpy().tobytes()
    # A bit for each label and for each client.
    assert {len(pool) for pool in pools} == {SEALED_BYTES + 2}
    # Of two random bytes one in 256 is the same: of what came, nothing is left in what goes on.
    differ = [(before != after).mean() for before, after in pairwise(pools)]
    assert np.mean(differ) > 0.95
    opened = [unseal(pool.tobytes(), secret) for pool in pools]
    assert Pool.unpack(opened[-1], 10, 5).labels == set(label_map(run).labels)
    with pytest.raises(ValueError, match="cannot be opened"):
        unseal(pools[0].tobytes(), bytes(32))


def test_neither_secrets_nor_labels_nor_what_they_become_are_in_any_message(run):
    own = [kept(run, client, "own-secret")["secret"].numpy().tobytes() for client in range(5)]
    common = kept(run, 0, "agreement")["secret"].numpy().tobytes()
    real_of = label_map(run).real_of.tobytes()
    for _, question, answer in run.grid.sent:
        for content in (question, answer):
            arrays = [one for record in content.array_records.values() for one in record.values()]
            everything = repr(content).encode() + b"".join(array.data for array in arrays)
            assert not any(secret in everything for secret in (*own, common, real_of))


def test_only_the_last_of_a_round_says_whether_all_are_done(run):
    for node_id, question, answer in run.grid.sent:
        for fields in question.config_records.values():
            if fields.get("action") != "add-to-pool":
                continue
            (told,) = (one for one in answer.config_records.values() if "seconds" in one)
            assert ("all-done" in told) == (fields["place"] == 4)
            assert client_of(node_id) == fields["place"]


def test_too_few_rounds_end_in_one_line():
    with pytest.raises(UserError) as refused:
        LocalRun(5, consensus_rounds=1, consensus_finish=0.01, **SHORT)
    line = str(refused.value)
    assert line.startswith("consensus-rounds=1 ")
    assert "more rounds" in line
    assert "\n" not in line


def test_labels_that_change_after_the_consensus_are_refused():
    def fewer(client):
        return {0} if client.client == 1 else set(client.holding.y.tolist())

    with (
        patch.object(SplitWiperPlusClient, "_own_labels", property(fewer)),
        pytest.raises(ClientFailureError) as failed,
    ):
        LocalRun(5, **SHORT)
    line = str(failed.value)
    assert "client 1" in line
    assert "not among those that the clients agreed on" in line
    assert "\n" not in line


# What is uploaded.


def test_without_expansion_and_noise_it_is_splitwiper_under_other_labels():
    # Six steps of many samples each. The order of the labels changes how sums are rounded, and by
    # that here and there a ReLU. After six such steps the weights differ by less than 3e-5, even
    # with smashed data that is off by one in a million. One wrong label in fifty makes it 1e-3.
    few_steps = {"batch_size": 512, "server_epochs": 2}
    splitwiper, shards = cached_run(strategy="splitwiper", **few_steps)
    run, uploads = cached_run(expansion=1, copies="replicate", **few_steps)
    assert run.digests["clients"] == splitwiper.digests["clients"]
    known = label_map(run)
    for client, (smashed, masked, _) in uploads.items():
        # The same records, in another order and by other names.
        records, labels, _ = shards[client]
        distances = cdist(smashed.reshape(len(smashed), -1), records.reshape(len(records), -1))
        there = distances.argmin(axis=1)
        assert sorted(there) == list(range(len(records)))
        assert np.allclose(smashed, records[there], atol=1e-5)
        assert (known.real_of[masked] == labels[there]).all()
    assert trained_in_plain_torch(run, uploads, known) == pytest.approx(
        dict.fromkeys(run.server_state, 0.0), abs=1e-4
    )


def trained_in_plain_torch(run, uploads, known):
    """How far the server segment is from one that learned the real labels, by weight."""
    config, data = run.prepared.config, run.prepared.dataset
    training = config.training()
    number = len(known.labels)
    seed = derive_seed(training.seed, "server-segment")
    segment = build_segment("server", config.cut_model(), data.input_shape, number, seed)
    # The row of a real label starts as that of its masked one.
    masked_of = torch.tensor([known.masked_of(label)[0] for label in known.labels])
    *_, weight, bias = segment.parameters()
    with torch.no_grad():
        weight.copy_(weight[masked_of])
        bias.copy_(bias[masked_of])
    optimiser = torch.optim.SGD(segment.parameters(), lr=training.learning_rate)
    clients = sorted(uploads)
    x = torch.from_numpy(np.concatenate([uploads[client][0] for client in clients]))
    y = torch.from_numpy(known.real_of[np.concatenate([uploads[one][1] for one in clients])])
    keys = np.concatenate([uploads[client][2] + (client << 40) for client in clients])
    for epoch in range(training.server_epochs):
        order = epoch_order(keys, training.seed, "train", epoch)
        for batch in batches(len(order), training.batch_size):
            rows = order[batch]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(segment(x[rows]), y[rows]).backward()
            optimiser.step()
    state = segment.state_dict()
    *_, last_weight, last_bias = state
    learned = {
        name: value[masked_of] if name in (last_weight, last_bias) else value
        for name, value in run.server_state.items()
    }
    return {name: float((learned[name] - state[name]).abs().max()) for name in state}


@pytest.mark.parametrize(("copies", "times"), [("replicate", 3), ("partition", 1), ("modes", 1)])
def test_how_often_a_record_is_uploaded_and_under_what(plain, copies, times):
    run, uploads = cached_run(copies=copies)
    known = label_map(run)
    data, plan = run.prepared.dataset, run.prepared.plan
    for client, (smashed, masked, names) in uploads.items():
        real = data.y_train[plan.train[client]]
        assert len(smashed) == times * len(real)
        found = np.bincount(known.real_of[masked], minlength=10)
        assert (found == times * np.bincount(real, minlength=10)).all()
        assert set(masked.tolist()) == {
            one for label in np.unique(real) for one in known.masked_of(int(label))
        }
        # Nothing in an id or in the order tells which record it is.
        assert not set(names.tolist()) & set(plan.train[client].tolist())
        assert (np.diff(names) > 0).all()
    ratio = run.phases[0]["server"]["cache_bytes"] / plain[0].phases[0]["server"]["cache_bytes"]
    assert ratio == pytest.approx(times)


@pytest.mark.parametrize("secrets", ["seed", "drawn"])
def test_only_who_knows_the_secret_can_take_the_noise_off(secrets):
    noisy = {"copies": "partition", "epsilon": 8, "privacy_unit": "element"}
    run, uploads = cached_run(secrets=secrets, **noisy)
    config, plan = run.prepared.config, run.prepared.plan
    # A server that knows the run's seed, and beside it records, segment, map, and whose row is
    # whose.
    weights, release = run.client_state(1), kept(run, 1, "release")
    segment = segment_with("client", config.cut_model(), (1, 8, 8), 10, weights)
    images, _ = run.prepared.dataset.train(plan.train[1])
    with torch.no_grad():
        records = segment(images[release["rows"]]).numpy()
    own = derive_key(b"a seed protects nothing", config.seed, 1)
    secret = derive_key(own, "upload", digest(weights))
    rows = np.arange(len(records))
    assignment = Assignment(
        **{name: release[name].numpy() for name in release if name not in ("number", "rows")},
        rows=rows,
    )
    mechanism = Mechanism.of(config.own)
    guessed = mask(records, assignment, mechanism, secret, 0, 0, len(records))
    clipped = mechanism.clip_records(records)
    left = uploads[1][0] - (guessed - clipped) - clipped
    noise = np.sqrt(2) * mechanism.scale
    if secrets == "seed":
        # Which is why the result says where secrets come from.
        assert np.abs(left).max() < 1e-3 * noise
    else:
        # Worse than leaving it: the guess is noise as well.
        assert left.std() == pytest.approx(np.sqrt(2) * noise, rel=0.05)


# Forgetting.


def test_only_the_requesting_client_takes_part_and_the_map_survives(run):
    asked = run.instructions("unlearn")
    assert {client for client, _ in asked} == {0}
    before = run.phases[0]["digests"]["clients"]
    assert [one for one in before if before[one] != run.digests["clients"][one]] == ["0"]
    assert run.phases[1]["accuracy"]["unlearned"] == 0.0
    maps = [label_map(run, client) for client in range(5)]
    assert maps[0] == maps[4]
    assert 2 in maps[0].labels


def test_each_upload_has_names_of_its_own():
    cached = Cached()
    with cached.patch:
        LocalRun(5, forget="samples:0.5@class:2", **SHORT)
    first, again = (names for client, _, _, names in cached.chunks if client == 0)
    assert not set(first.tolist()) & set(again.tolist())


# Scores.


def test_scores_tell_no_label(run):
    for _, _, answer, fields in crossed(run, "score"):
        groups = json.loads(fields["groups"])
        assert len(groups) == 2
        assert not answer
    for phase in run.phases:
        assert set(phase["accuracy"]["per_label"].values()) == {None}


def test_accuracy_is_that_of_counting_by_label():
    settings = {"pretrain_epochs": 2, "server_epochs": 6, "forget": "class:2;client:3"}
    run = LocalRun(5, strategy="splitwiper-plus", **settings)
    with (
        patch("split_unlearning.strategies.splitwiper_plus.SplitWiperPlus.counts_by_label", True),
        patch.object(SplitWiperPlusClient, "score_groups", SplitClient.score_groups),
    ):
        by_label = LocalRun(5, strategy="splitwiper-plus", **settings)
    assert run.digests == by_label.digests
    for one, other in zip(run.phases, by_label.phases, strict=True):
        for share in ("unlearned", "retained", "per_client"):
            assert one["accuracy"][share] == other["accuracy"][share]
        assert None not in other["accuracy"]["per_label"].values()


# Bad input.


def test_noise_that_is_described_and_not_asked_for_is_refused():
    for key, value in (("clip", 2.0), ("mechanism", "gaussian"), ("privacy-unit", "element")):
        with pytest.raises(UserError, match=rf"^{key}=.*epsilon='none'"):
            RunConfig.from_mapping({"strategy": "splitwiper-plus", key: value}).check()


def test_keys_of_label_privacy_are_refused_where_nothing_reads_them():
    for key, value in (("expansion", 2), ("epsilon", 1.0), ("attacks", True)):
        with pytest.raises(UserError, match=f"^{key}="):
            RunConfig.from_mapping({"strategy": "splitwiper", key: value}).check()


# What the server can tell.


def test_attacks_are_measured_on_what_the_server_received():
    settings = {**SHORT, "copies": "replicate", "expansion": 2}
    run = LocalRun(5, attacks=True, forget="class:2", **settings)
    plain = LocalRun(5, forget="class:2", **settings)
    # To be attacked changes nothing.
    assert run.digests == plain.digests
    assert [phase["label_matching"] for phase in plain.phases] == [None, None]
    learned, forgotten = (phase["label_matching"] for phase in run.phases)
    scores = {one["name"]: one for one in learned["attacks"]}
    # Each client holds two labels, of different sizes: counting finds all that is copied.
    data, plan = run.prepared.dataset, run.prepared.plan
    sizes = [np.unique(data.y_train[ids], return_counts=True)[1].tolist() for ids in plan.train]
    apart = np.mean([len(set(size)) == len(size) for size in sizes])
    assert apart > 0.5
    assert scores["record counts"]["perfect"] == pytest.approx(apart)
    assert scores[learned["strongest"]]["perfect"] == max(
        one["perfect"] for one in learned["attacks"]
    )
    # Those of the label that was forgotten are gone together.
    assert learned["vanished_are_one_label"] is None
    assert forgotten["vanished_are_one_label"] is True


def test_a_client_reveals_what_masked_labels_mean_only_to_score_attacks():
    with (
        patch("split_unlearning.strategies.splitwiper_plus.SplitWiperPlus.score", asks_for_the_map),
        pytest.raises(ClientFailureError, match="said where attacks=true, and never else"),
    ):
        LocalRun(5, forget="", **SHORT)


def asks_for_the_map(strategy, present=None):
    yield strategy.ask([0], "reveal-map")


# What noise guarantees.


def test_the_result_says_what_noise_guarantees_and_for_what():
    noisy = {**SHORT, "epsilon": 2, "privacy_unit": "element", "expansion": "1-3"}
    run = LocalRun(5, copies="replicate", forget="samples:0.5@class:2;class:2", **noisy)
    mechanism = Mechanism.of(run.prepared.config.own)
    # Both requests are of client 0: it has uploaded once more after each.
    assert [one.clients for one in run.prepared.forgettings] == [[0], [0]]
    for phase, most in zip(run.phases, (1, 2, 3), strict=True):
        privacy = phase["privacy"]
        assert privacy["releases"] == 3 * most
        spent = mechanism.spent(3 * most)
        assert (privacy["epsilon"], privacy["delta"]) == (spent.epsilon, spent.delta)
        assert privacy["pure_epsilon"] == 2 * 3 * most
        assert privacy["unit"].startswith("one number of one train record's smashed data")
        assert any("the run's seed" in one for one in privacy["does_not_cover"])
    drawn = LocalRun(5, copies="modes", secrets="drawn", forget="", **noisy).phases[0]["privacy"]
    assert drawn["releases"] == 1
    assert any("choice of a masked label" in one for one in drawn["does_not_cover"])
    assert not any("the run's seed" in one for one in drawn["does_not_cover"])
    assert LocalRun(5, forget="", **SHORT).phases[0]["privacy"] is None
