"""A request visits its own samples alone, and leaves nothing behind that it does not need."""

from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
import torch

from split_unlearning.clients import base
from split_unlearning.clients.base import SplitClient
from split_unlearning.simulations.client_app import ContextStore
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.transport.ledger import Ledger
from split_unlearning.transport.link import LinkError
from tests.local_grid import node_of
from tests.protocol.unsplit import (
    FOLLOWING,
    thin_run,
)
from tests.transport.loopback import LoopbackLink


def spied_visits(**settings):
    """Run, and return it with what every batch held: phase, client, stage, request, Batch."""
    seen = []
    visit = SplitClient.visit

    def spy(client, stage, epoch, about, *holding):
        for x, batch in visit(client, stage, epoch, about, *holding):
            seen.append((client.phase, client.client, stage.name, about, batch))
            yield x, batch

    with patch.object(SplitClient, "visit", spy):
        return thin_run(2, **settings), seen


def visited(seen, stage, about):
    """Return the ids that a stage visited for a request, and those of them said to be forgotten."""
    batches = [one[-1] for one in seen if one[0] == "unlearn" and one[2:4] == (stage, about)]
    everything = {int(sample) for batch in batches for sample in batch.ids}
    forgotten = {int(sample) for batch in batches for sample in batch.ids[batch.forgotten.numpy()]}
    return everything, forgotten


@cache
def spied_twice(strategy, method):
    return spied_visits(
        share=12, server_epochs=1, strategy=strategy, unlearning=method, forget=FOLLOWING
    )


STRATEGIES = ["vanilla", "u-shaped", "splitfed", "splitwiper"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("method", ["gradient-ascent", "distillation"])
def test_a_second_request_is_about_its_own_samples_and_those_of_the_first_are_gone(
    strategy, method
):
    run, seen = spied_twice(strategy, method)
    first, second = (set(one.samples[0].tolist()) for one in run.prepared.forgettings)
    assert first
    assert second
    assert not first & second
    plan = run.prepared.plan.train
    held = set((plan[0] if strategy == "splitwiper" else np.concatenate(plan)).tolist())
    unlearning = {(stage, about) for phase, _, stage, about, _ in seen if phase == "unlearn"}
    for about, meant, retained in ((1, first, held - first), (2, second, held - first - second)):
        if method == "gradient-ascent":
            assert visited(seen, "ascent", about) == (meant, meant)
            assert visited(seen, "fine-tune", about) == (retained, set())
        else:
            assert visited(seen, "distillation", about) == (retained | meant, meant)
    assert {about for _, about in unlearning} == {1, 2}


def test_learning_visits_everything_and_forgets_nothing():
    run, seen = spied_twice("vanilla", "distillation")
    batches = [batch for phase, *_, batch in seen if phase == "learn"]
    assert {int(sample) for batch in batches for sample in batch.ids} == {
        int(sample) for ids in run.prepared.plan.train for sample in ids
    }
    assert not any(batch.forgotten.any() for batch in batches)


# Teachers.


def kept_names(run, client):
    return set(ContextStore(run.grid.contexts[node_of(client)]))


def consult(run, teacher):
    """Ask the server, after the run, for its side of a teacher."""
    link = LoopbackLink(run.strategy.server.parts[ServerLink].answer, Ledger(), 0, "unlearn")
    return link.exchange({"smashed": torch.zeros(2, 8, 4, 4)}, {"teacher": teacher})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_teachers_leave_nothing_behind(strategy):
    run, _ = spied_twice(strategy, "distillation")
    for client in range(2):
        names = kept_names(run, client)
        assert "segment" in names
        assert not names & {"original", "incompetent"}
    for teacher in ("original", "incompetent"):
        with pytest.raises(LinkError, match=f"there is no teacher '{teacher}' in this stage"):
            consult(run, teacher)


# Its copy of the original, which had not forgotten, is dropped at the end of the last turn. That
# never comes, so with the next message that is about no stage.
def test_a_client_that_misses_its_turns_keeps_no_teacher_either():
    connect = base.connect

    def broken(endpoint, client, phase, *codec):
        if (client, phase) == (1, "unlearn"):
            raise RuntimeError("the network is down")
        return connect(endpoint, client, phase, *codec)

    with patch("split_unlearning.clients.base.connect", broken):
        run = thin_run(2, strategy="vanilla", unlearning="distillation", skip_absent=True)
    assert run.phases[1]["absent"]
    assert "original" not in kept_names(run, 0)
    assert "original" not in kept_names(run, 1)


def test_the_state_of_a_client_holds_what_it_needs_and_nothing_else():
    for strategy, names in (
        ("vanilla", {"segment", "momentum", "forgotten"}),
        ("u-shaped", {"segment", "momentum", "forgotten"}),
        ("splitwiper", {"segment", "local-head", "forgotten"}),
    ):
        run, _ = spied_twice(strategy, "distillation")
        assert kept_names(run, 0) == names
        assert kept_names(run, 1) == names - {"forgotten"}
