"""Every unlearning method written again in plain PyTorch, without a cut."""

import copy
import math

import numpy as np
import torch
from torch import nn

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.pooling import pool_to_quarters
from split_unlearning.models.seeding import seeded
from split_unlearning.models.split import build_segment
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.preparation import deal
from split_unlearning.unlearning.exactness import order
from split_unlearning.unlearning.stages import Stage
from tests.local_grid import LocalRun, client_of, dealt
from tests.protocol.test_splitfed import mean
from tests.protocol.test_vanilla import SEED, same_bits

RATE, MOMENTUM, BATCH, EPOCHS = 0.05, 0.9, 32, 2
# Some samples come to it in two epochs of ascent, and others do not.
BOUND = 1.1
# Quarters are exact in binary: who multiplies or divides first rounds no differently.
ALPHA = 0.25
KEYS = {
    "none": {},
    "fine-tune": {"fine_tune_epochs": 2},
    "gradient-ascent": {"ascent_epochs": 2, "ascent_bound": BOUND, "fine_tune_epochs": 1},
    "distillation": {"distillation_epochs": 2, "distillation_alpha": ALPHA},
}
METHODS = ["fine-tune", "gradient-ascent", "distillation"]
FOLLOWING = "class:2;samples:0.5@class:3"


def thin_run(num_clients, share=4, **settings):
    """Return a run with one sample in so many."""
    settings = {
        "server_epochs": EPOCHS,
        "learning_rate": RATE,
        "momentum": MOMENTUM,
        "seed": SEED,
        "forget": "class:2",
        **KEYS[settings.get("unlearning", "none")],
        **settings,
    }
    config = RunConfig.from_mapping({key.replace("_", "-"): settings[key] for key in settings})
    dataset, plan = deal(config, num_clients)
    thinned = [tuple(ids[::share] for ids in split) for split in (plan.train, plan.test)]
    with dealt(dataset, Plan(*thinned)):
        return LocalRun(num_clients, **settings)


# The methods, written again.


def cross_entropies(logits, labels):
    return -logits.log_softmax(dim=1)[torch.arange(len(labels)), labels]


def learn_labels(logits, labels, forgotten, ask):
    return cross_entropies(logits, labels).mean()


def climb(logits, labels, forgotten, ask):
    each = cross_entropies(logits, labels)
    below = each.detach() < BOUND * math.log(logits.shape[1])
    return -(each * below).sum() / len(labels)


def distil(logits, labels, forgotten, ask):
    loss = 0.0
    halves = (("incompetent", forgotten, ALPHA), ("original", ~forgotten, 1 - ALPHA))
    for name, rows, weight in halves:
        if rows.any():
            answers = ask(name, rows)
            gap = answers.log_softmax(dim=1) - logits[rows].log_softmax(dim=1)
            loss += weight * (answers.softmax(dim=1) * gap).sum(dim=1).mean()
    return loss


LEARN = ("train", EPOCHS, "retained", learn_labels)
PASSES = {
    "fine-tune": [("fine-tune", 2, "retained", learn_labels)],
    "gradient-ascent": [
        ("ascent", 2, "forgotten", climb),
        ("fine-tune", 1, "retained", learn_labels),
    ],
    "distillation": [("distillation", 2, "all", distil)],
}


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=RATE, momentum=MOMENTUM)


def requests_of(run):
    """Yield for each request the samples that it means and those that an earlier one meant."""
    gone = {client: np.empty(0, np.int64) for client in range(run.prepared.plan.num_clients)}
    for forgetting in run.prepared.forgettings:
        yield forgetting.samples, dict(gone)
        for client, ids in forgetting.samples.items():
            gone[client] = np.concatenate([gone[client], ids])


def visited_ids(run, which, client, meant, gone):
    """Return the samples of a client that a stage visits, and those of them to be forgotten."""
    forgotten = meant.get(client, np.empty(0, np.int64))
    here = np.setdiff1d(run.prepared.plan.train[client], gone.get(client, forgotten))
    if which == "retained":
        return np.setdiff1d(here, forgotten), forgotten
    return (np.sort(forgotten) if which == "forgotten" else here), forgotten


def one_epoch(run, network, optimisers, passing, epoch, client, ids, forgotten, teachers, steps=0):
    """Train an unsplit network for one epoch on a client's samples; return the steps so far."""
    name, _, _, loss = passing
    visited = ids[order(ids, derive_seed(SEED, "order", name, client, epoch))]
    chunks = [visited[start : start + BATCH] for start in range(0, len(visited), BATCH)]
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [np.concatenate(chunks[-2:])]
    for rows in chunks:
        x, y = run.prepared.dataset.train(rows)

        def ask(teacher, mask, x=x):
            with torch.no_grad():
                return teachers[teacher](x[mask])

        mask = torch.from_numpy(np.isin(rows, forgotten))
        for optimiser in optimisers:
            optimiser.zero_grad()
        # Of use to dropout alone.
        with seeded(derive_seed(SEED, "server-step", name, steps)):
            logits = network(x)
        loss(logits, y, mask, ask).backward()
        for optimiser in optimisers:
            optimiser.step()
        steps += 1
    return steps


def stretch(run, part, *purpose):
    data = run.prepared.dataset
    shape = (data.input_shape, data.num_classes)
    return build_segment(part, run.prepared.config.cut_model(), *shape, derive_seed(SEED, *purpose))


def whole(run, owner, server):
    """Return a client's network: what it holds and, in the middle or at the end, the server's."""
    if run.prepared.config.strategy == "u-shaped":
        bottom, head = (stretch(run, part, f"{part}-segment", owner) for part in ("client", "head"))
        return nn.Sequential(bottom, server, head)
    return nn.Sequential(stretch(run, "client", "client-segment", owner), server)


def fresh_server(run, purpose="server-segment"):
    part = "trunk" if run.prepared.config.strategy == "u-shaped" else "server"
    return stretch(run, part, purpose)


def incompetent(run):
    return whole(run, "incompetent", fresh_server(run, "incompetent-server-segment")).eval()


def held_by_client(run, network):
    """Return the state of what a client holds of a network, named as it keeps it."""
    if run.prepared.config.strategy != "u-shaped":
        return network[0].state_dict()
    ends = {"bottom": network[0], "head": network[2]}
    return nn.ModuleDict(ends).state_dict()


def in_turns(run, networks, passing, clients, meant, gone):
    """Go through one stage: networks that share the server's part, epoch by epoch, in turns."""
    name, epochs, which, _ = passing
    dunce = incompetent(run)
    teachers = {
        client: {"original": copy.deepcopy(networks[client]).eval(), "incompetent": dunce}
        for client in clients
    }
    # Segments that are one have one optimiser; all are fresh.
    segments = {id(part): part for client in clients for part in networks[client]}
    optimisers = {key: sgd(part) for key, part in segments.items()}
    steps = 0
    for epoch in range(epochs):
        for client in run.strategy.turns(Stage(name, epochs), epoch, clients):
            network = networks[client]
            ids, forgotten = visited_ids(run, which, client, meant, gone)
            own = [optimisers[id(part)] for part in network]
            steps = one_epoch(
                run, network, own, passing, epoch, client, ids, forgotten, teachers[client], steps
            )


def unsplit(run):
    """Learn and forget as a vanilla or u-shaped run did; return each client's network."""
    config, everybody = run.prepared.config, range(run.prepared.plan.num_clients)
    server = fresh_server(run)
    if config.all_options["client-sync"] == "handoff":
        networks = dict.fromkeys(everybody, whole(run, "shared", server))
    else:
        networks = {client: whole(run, client, server) for client in everybody}
    in_turns(run, networks, LEARN, everybody, {}, {})
    for meant, gone in requests_of(run):
        for passing in PASSES[config.unlearning]:
            clients = sorted(meant) if passing[2] == "forgotten" else everybody
            in_turns(run, networks, passing, clients, meant, gone)
    return networks


def equals_the_unsplit_network(run):
    networks = unsplit(run)
    for client, network in networks.items():
        assert same_bits(run.client_state(client), held_by_client(run, network))
    assert same_bits(run.server_state, networks[0][1].state_dict())


def stages_trained(run):
    """Return which client took a turn of which stage while forgetting."""
    return {
        (str(fields["stage"]), client_of(node_id))
        for node_id, content, _ in run.grid.sent
        for name, fields in content.config_records.items()
        if name == "fitins.config" and fields["action"] == "train" and fields["phase"] == "unlearn"
    }


# Vanilla and U-shaped: the same bits. A cut changes no operation, and a mask hands each teacher the
# same rows in the same order here and there.


def averaged(run):
    """Learn and forget as SplitFed does; return the one network that there is after each round."""
    config, everybody = run.prepared.config, range(run.prepared.plan.num_clients)
    network = whole(run, "shared", fresh_server(run))

    def rounds(passing, clients, meant, gone):
        name, epochs, which, _ = passing
        teachers = {"original": copy.deepcopy(network), "incompetent": incompetent(run)}
        # The one server segment of version 2 keeps its optimiser from round to round.
        server = sgd(network[1])
        for epoch in range(epochs):
            trained, sizes = [], []
            for client in run.strategy.turns(Stage(name, epochs), epoch, clients):
                ids, forgotten = visited_ids(run, which, client, meant, gone)
                if config.all_options["splitfed-version"] == 1:
                    own = copy.deepcopy(network)
                    optimisers = [sgd(own)]
                else:
                    own = nn.Sequential(copy.deepcopy(network[0]), network[1])
                    optimisers = [sgd(own[0]), server]
                one_epoch(run, own, optimisers, passing, epoch, client, ids, forgotten, teachers)
                trained.append(own)
                sizes.append(len(ids))
            network.load_state_dict(mean(trained, sizes))

    rounds(LEARN, everybody, {}, {})
    for meant, gone in requests_of(run):
        for passing in PASSES[config.unlearning]:
            rounds(passing, sorted(meant) if passing[2] == "forgotten" else everybody, meant, gone)
    return network


def local_head(run, segment, owner):
    data = run.prepared.dataset
    channels, height, width = segment(torch.zeros(1, *data.input_shape)).shape[1:]
    pool, cells = pool_to_quarters(height, width)
    with seeded(derive_seed(SEED, "local-head", owner)):
        return nn.Sequential(pool, nn.Flatten(), nn.Linear(channels * cells, data.num_classes))


def alone(run, owner):
    """Return a fresh client segment and the local head it is trained against."""
    segment = stretch(run, "client", "client-segment", owner)
    return nn.Sequential(segment, local_head(run, segment, owner))


def trained_alone(run, client, pretrain_epochs):
    """Pre-train a client and let it forget, request by request; return its segment."""
    config = run.prepared.config
    network = alone(run, client)

    def go_through(passing, meant, gone):
        teachers = {"original": copy.deepcopy(network), "incompetent": alone(run, "incompetent")}
        ids, forgotten = visited_ids(run, passing[2], client, meant, gone)
        optimisers = [sgd(network)]
        for epoch in range(passing[1]):
            one_epoch(run, network, optimisers, passing, epoch, client, ids, forgotten, teachers)

    go_through(("pretrain", pretrain_epochs, "retained", learn_labels), {}, {})
    for meant, gone in requests_of(run):
        for passing in PASSES[config.unlearning] if client in meant else ():
            go_through(passing, meant, gone)
    return network[0]


def server_from_scratch(run, segments):
    """Train a fresh server segment on the smashed data of what is retained."""
    data, gone = run.prepared.dataset, {}
    for meant, _ in requests_of(run):
        for client, ids in meant.items():
            gone[client] = np.union1d(gone.get(client, ids), ids)
    smashed, labels, keys = [], [], []
    for client, ids in enumerate(run.prepared.plan.train):
        left = np.setdiff1d(ids, gone.get(client, []))
        x, y = data.train(left)
        with torch.no_grad():
            smashed.append(segments[client](x))
        labels.append(y)
        keys.append(client * 2**40 + left)
    smashed, labels, keys = torch.cat(smashed), torch.cat(labels), np.concatenate(keys)
    server = fresh_server(run)
    steps = sgd(server)
    for epoch in range(EPOCHS):
        visited = torch.from_numpy(order(keys, derive_seed(SEED, "server-order", "train", epoch)))
        for rows in torch.split(visited, BATCH):
            steps.zero_grad()
            cross_entropies(server(smashed[rows]), labels[rows]).mean().backward()
            steps.step()
    return server
