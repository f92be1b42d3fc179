"""Layers draw by a seed, in any number of threads."""

import copy
import threading

import pytest
import torch
from torch import nn

from split_unlearning.models.seeding import computed_seeded, seeded
from split_unlearning.models.split import build_segment


def test_seeded_draws_by_its_seed_and_leaves_the_global_generator_as_it_was():
    torch.manual_seed(5)
    before = torch.default_generator.get_state()
    with seeded(11):
        drawn = torch.rand(4)
    assert torch.equal(torch.default_generator.get_state(), before)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(11)))


def test_seeded_restores_the_generator_and_lets_go_when_the_block_raises():
    before = torch.default_generator.get_state()
    with pytest.raises(ZeroDivisionError), seeded(11):
        torch.rand(4).tolist()[0] / 0
    assert torch.equal(torch.default_generator.get_state(), before)
    # Would wait for ever if the lock were still held.
    with seeded(11):
        pass


def test_two_threads_draw_what_they_would_draw_alone():
    entered, other_drew = threading.Event(), threading.Event()
    drawn = {}

    def first():
        with seeded(1):
            begun = torch.rand(3)
            entered.set()
            # Only a thread that is not kept out can draw meanwhile; the wait then ends at once.
            other_drew.wait(0.2)
            drawn[1] = torch.cat([begun, torch.rand(3)])

    def second():
        entered.wait(10)
        with seeded(2):
            begun = torch.rand(3)
            other_drew.set()
            drawn[2] = torch.cat([begun, torch.rand(3)])

    threads = [threading.Thread(target=target) for target in (first, second)]
    before = torch.default_generator.get_state()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        alone = torch.cat([torch.rand(3, generator=generator) for _ in range(2)])
        assert torch.equal(drawn[seed], alone)
    assert torch.equal(torch.default_generator.get_state(), before)


def test_a_seeded_block_may_stand_in_another():
    with seeded(1):
        with seeded(2):
            inner = torch.rand(3)
        outer = torch.rand(3)
    with seeded(2):
        assert torch.equal(torch.rand(3), inner)
    with seeded(1):
        assert torch.equal(torch.rand(3), outer)


class Noisy(nn.Module):
    """A stranger's layer: that it draws cannot be told from its name."""

    def forward(self, x):
        return x + torch.rand_like(x)


@pytest.mark.parametrize("model", ["vgg", "own"])
def test_a_pass_draws_what_it_would_draw_in_one_block(model):
    own = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU(), Noisy(), nn.Sequential(nn.Dropout(0.2))
    )
    segment = own if model == "own" else build_segment("server", "vgg", (3, 32, 32), 10, seed=0)
    x = torch.rand(6, 4) if model == "own" else torch.rand(6, 8, 16, 16)
    before = torch.default_generator.get_state()
    with seeded(3):
        in_one = copy.deepcopy(segment.train())(x)
    assert torch.equal(computed_seeded(segment, x, seed=3), in_one)
    assert not torch.equal(computed_seeded(segment, x, seed=4), in_one)
    assert torch.equal(torch.default_generator.get_state(), before)


class Meeting(nn.ReLU):
    """Goes on when as many threads as are expected compute at once."""

    def __init__(self, barrier):
        super().__init__()
        self._barrier = barrier

    def forward(self, x):
        self._barrier.wait(30)
        return super().forward(x)

    def __deepcopy__(self, memo):
        return Meeting(self._barrier)


def test_passes_wait_for_each_other_only_where_one_may_draw(monkeypatch):
    """Three threads meet in a layer that draws nothing; in one that may, they never would."""
    barrier = threading.Barrier(3)
    segment = nn.Sequential(nn.Linear(4, 4), Meeting(barrier), nn.Dropout(0.5)).train()
    x = torch.rand(5, 4)
    monkeypatch.setattr("split_unlearning.models.seeding._DRAW_NOTHING", {nn.Linear, Meeting})
    found = {}

    def compute(seed):
        found[seed] = computed_seeded(copy.deepcopy(segment), x, seed)

    threads = [threading.Thread(target=compute, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [0, 1, 2]
    alone = nn.Sequential(segment[0], nn.ReLU(), segment[2])
    for seed, together in found.items():
        with seeded(seed):
            assert torch.equal(alone(x), together)
