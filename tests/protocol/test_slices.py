"""SISA's slices, on the client and on the server: less to redo, and still exact."""

from functools import wraps
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.clients import alone
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.strategies.splitwiper import SplitWiper
from split_unlearning.unlearning.slices import slice_of
from tests.local_grid import LocalRun, dealt

SHORT = {"pretrain_epochs": 2, "server_epochs": 4, "forget": "class:2"}


def trained_without_what(run):
    """Train from scratch, under the same plan, without the samples that the run forgot."""
    plan = run.prepared.plan
    gone = [ids for one in run.prepared.forgettings for ids in one.samples.values()]
    kept = tuple(np.setdiff1d(ids, np.concatenate(gone)) for ids in plan.train)
    with dealt(run.prepared.dataset, Plan(kept, plan.test)):
        return LocalRun(plan.num_clients, **{**run.prepared.config.as_mapping(), "forget": ""})


@pytest.mark.parametrize(("slices", "server_slices"), [(4, 1), (1, 5), (3, 2)])
@pytest.mark.parametrize(
    "forget", ["class:2", "samples:0.1@class:2;client:3", "client:1;client:4;samples:0.5@class:2"]
)
def test_forgetting_with_slices_is_exact(slices, server_slices, forget):
    run = LocalRun(
        5,
        distribution="iid",
        momentum=0.5,
        samples=480,
        test_samples=120,
        slices=slices,
        server_slices=server_slices,
        **{**SHORT, "forget": forget},
    )
    reference = trained_without_what(run)
    assert run.digests == reference.digests
    assert run.digests["server"] != run.phases[0]["digests"]["server"]


@given(ids=st.sets(st.integers(0, 1441), min_size=1, max_size=6), seed=st.integers(0, 3))
@settings(max_examples=4, deadline=None)
def test_any_samples_are_forgotten_exactly(ids, seed, tmp_path_factory):
    file = tmp_path_factory.mktemp("ids") / "ids.txt"
    file.write_text("\n".join(map(str, ids)))
    run = LocalRun(
        3,
        distribution="iid",
        slices=3,
        server_slices=3,
        seed=seed,
        stable_clients="1,2,0",
        **{**SHORT, "server_epochs": 2, "forget": f"ids:{file}"},
    )
    assert run.digests == trained_without_what(run).digests


def visits(**chosen):
    """Count the samples that clients and the server visit, while they learn and while they forget.

    They are counted instead of learned from. Returns both phases' counts by side, and the run.
    """
    counts = {"client": [0], "server": [0]}
    unlearn = SplitWiper.unlearn

    def alone_counted(client, segment, head, stage, *arguments, holding=None):
        counts["client"][-1] += stage.epochs * len(holding.ids)

    @wraps(Shards.train)
    def on_shards_counted(shards, epoch, clients=None):
        counts["server"][-1] += len(shards._cache.samples(clients))

    def next_phase(strategy, requests):
        for each in counts.values():
            each.append(0)
        return unlearn(strategy, requests)

    with (
        patch.object(alone, "train_alone", alone_counted),
        patch.object(Shards, "train", on_shards_counted),
        patch.object(SplitWiper, "unlearn", next_phase),
    ):
        run = LocalRun(5, distribution="iid", **chosen)
    return counts, run


def test_the_server_redoes_the_steps_from_the_first_slice_that_is_touched():
    common = {"pretrain_epochs": 0, "server_epochs": 30, "batch_size": 512}
    common |= {"forget": "samples:0.1@class:2"}
    whole = visits(**common)[0]["server"][0]
    shares = []
    for client in range(5):
        learned, again = visits(server_slices=5, forget_client=client, **common)[0]["server"]
        # About as many visits as without slices.
        assert 0.95 < learned / whole <= 1
        shares.append(again / whole)
    assert shares == sorted(shares, reverse=True)
    assert np.mean(shares) < 0.6
    assert shares[-1] < 0.35


def test_who_is_called_least_stable_lies_last():
    common = {"pretrain_epochs": 0, "server_epochs": 5, "server_slices": 5, "batch_size": 512}
    first, last = (
        visits(stable_clients=order, forget="samples:0.1@class:2", **common)[0]["server"][1]
        for order in ("0,1,2,3,4", "4,3,2,1,0")
    )
    assert last < first / 3


def test_a_client_redoes_the_steps_from_the_first_slice_that_is_touched(tmp_path):
    file = tmp_path / "ids.txt"
    common = {"pretrain_epochs": 12, "server_epochs": 1, "slices": 4}
    ids = LocalRun(5, distribution="iid", server_epochs=1, forget="").prepared.plan.train[0]
    inside = slice_of(ids, 4, derive_seed(0, "slices", 0))
    # 18, 2, 1 and 4 epochs, on one, two, three and all four of its slices.
    sizes = np.cumsum(np.bincount(inside)).tolist()
    for touched in range(4):
        file.write_text(str(ids[inside == touched][0]))
        counts, _ = visits(forget=f"ids:{file}", **common)
        redone = [
            epochs * (size - 1)
            for step, (epochs, size) in enumerate(zip((18, 2, 1, 4), sizes, strict=True))
            if step >= touched
        ]
        assert counts["client"][1] == sum(redone)


def test_more_slices_than_clients_are_refused():
    with pytest.raises(UserError, match="server-slices=4 is not possible; allowed: at most 3"):
        LocalRun(3, server_slices=4, **SHORT)


def test_an_order_of_other_clients_is_refused():
    with pytest.raises(UserError, match=r"stable-clients='0,1' .* each number from 0 to 2"):
        LocalRun(3, stable_clients="0,1", **SHORT)


def test_slices_go_with_retraining_only():
    with pytest.raises(UserError, match=r"slices=2 .*unlearning='fine-tune'"):
        LocalRun(3, slices=2, unlearning="fine-tune", **SHORT)
