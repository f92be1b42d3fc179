"""A module of the user's own is cut where the user says, and computes what it computed."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.cuts import cuts
from split_unlearning.models.network import Network
from split_unlearning.models.own_model import own_architecture
from split_unlearning.models.split import CutModel, build_network, seeded
from split_unlearning.simulations.cli import app
from tests.local_grid import LocalRun
from tests.refusals import refusal

SHAPE = (1, 8, 8)


class Plain(nn.Module):
    def __init__(self, num_classes, width=6):
        super().__init__()
        self.early = nn.Conv2d(1, width, 3, padding=1)
        self.late = nn.Linear(width * 64, num_classes)

    def forward(self, x):
        x = torch.relu(self.early(x))
        return self.late(x.flatten(1))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Direct(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.early, self.late = nn.Linear(64, 8), nn.Linear(8, num_classes)
        self.scale = nn.Parameter(torch.rand(8))
        self.register_buffer("mean", torch.rand(8))

    def forward(self, x):
        return self.late((self.early(x.flatten(1)) - self.mean) * self.scale)


def lazy(shape, labels):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Linear(8, labels))


def twice(shape, labels):
    shared = nn.Linear(64, 64)
    return nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared, nn.Linear(64, labels))


class AsksItsMode(nn.Module):
    def __init__(self):
        super().__init__()
        self.late = nn.Linear(64, 10)

    def forward(self, x):
        return self.late(nn.functional.dropout(x.flatten(1), 0.5, training=self.training))


class ActsByItsMode(AsksItsMode):
    def forward(self, x):
        return self.late(x.flatten(1) * 2 if self.training else x.flatten(1))


def by_position(shape, labels):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], labels))


def by_name(*, input_shape, num_labels=10):
    return by_position(input_shape, num_labels)


@pytest.fixture
def mine(monkeypatch):
    trained = Plain(10)
    kinds = {"Plain": Plain, "by_position": by_position, "by_name": by_name, "trained": trained}
    kinds |= {"Direct": Direct, "lazy": lazy, "twice": twice}
    module = ModuleType("mine")
    module.__dict__.update(kinds, Branching=Branching, wrong=3, makes=lambda: 4)
    module.__dict__.update(AsksItsMode=AsksItsMode, ActsByItsMode=ActsByItsMode, number=int)
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


@pytest.mark.parametrize("kind", ["Plain", "Direct", "by_position", "by_name", "trained"])
def test_its_layers_compute_what_it_does(mine, kind):
    with seeded(0):
        network = build_network(f"mine:{kind}", SHAPE, 10)
    assert isinstance(network, Network)
    with seeded(0):
        made = getattr(mine, kind)
        theirs = {
            "Plain": lambda: made(num_classes=10),
            "Direct": lambda: made(num_classes=10),
            "by_position": lambda: made(SHAPE, 10),
            "by_name": lambda: made(input_shape=SHAPE),
            "trained": lambda: made,
        }[kind]()
    x = torch.rand(3, *SHAPE)
    torch.testing.assert_close(network.whole()(x), theirs(x))
    if kind == "trained":
        # A copy: training one client's segment changes nobody else's.
        assert {id(one) for one in network.whole().parameters()}.isdisjoint(
            id(one) for one in theirs.parameters()
        )


def test_a_forward_pass_that_asks_for_its_mode_is_told_that_of_now(mine):
    whole = build_network("mine:AsksItsMode", SHAPE, 10).whole()
    x = torch.rand(3, *SHAPE)
    assert not torch.equal(whole(x), whole(x))
    torch.testing.assert_close(whole.eval()(x), whole.late(x.flatten(1)))
    assert not torch.equal(whole.train()(x), whole(x))


def test_a_run_learns_and_forgets_with_it(mine):
    settings = {"strategy": "splitwiper", "model": "mine:Plain", "pretrain_epochs": 2}
    run = LocalRun(3, cut="relu", server_epochs=5, **settings)
    assert run.phases[0]["accuracy"]["retained"] > 0.5
    assert run.phases[1]["accuracy"]["unlearned"] < 0.2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong", "a torch.nn.Module, a class of one, or a function that makes one"),
        ("makes", "what makes a torch.nn.Module, not int"),
        ("number", "a torch.nn.Module, a class of one, or a function that makes one"),
        ("lazy", "a model whose layers say how many inputs they have"),
        ("Branching", "a model that torch.fx can take apart"),
        ("ActsByItsMode", "its forward pass takes another way where self.training is true"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(mine, name, said):
    line = refusal(build_network, f"mine:{name}", SHAPE, 10, error=UserError)
    assert line.startswith(f"model='mine:{name}' is not possible; allowed: ")
    assert said in line


def test_a_parameter_that_nobody_can_fill_is_named():
    def build(depth, width, num_labels):
        raise AssertionError

    line = refusal(own_architecture("mine:build", build), SHAPE, 10, error=UserError)
    assert "with a default, not 'depth'" in line


def test_without_a_cut_the_layers_are_named(mine):
    line = refusal(build_network("mine:Plain", SHAPE, 10).segment, "client", error=UserError)
    assert line == "cut='' is not possible; allowed: early, relu, flatten"


def test_the_page_on_data_shows_what_the_command_prints(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    code, said = re.findall(r"```(?:python|text)\n(.*?)```", page, flags=re.DOTALL)[-2:]
    (tmp_path / "my_model.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    shown = CliRunner().invoke(app, ["models", "my_model:Net", "--shape", "1,8,8"])
    assert shown.stdout == said
    LocalRun(2, model="my_model:Net", cut="relu", forget="", server_epochs=1)


@pytest.mark.parametrize("shape", ["", "3", "3,32", "a,b,c", "3,0,32"])
def test_a_shape_that_is_none_is_refused(shape):
    shown = CliRunner().invoke(app, ["models", "cnn", "--shape", shape])
    assert shown.exit_code == 2
    assert len(shown.stderr.splitlines()) == 1


def test_cuts_say_what_each_costs(mine):
    first, second, third = cuts("mine:Plain", SHAPE, 10)
    assert [one.layer for one in (first, second, third)] == ["early", "relu", "flatten"]
    assert first.smashed_shape == (6, 8, 8)
    assert third.smashed_shape == (384,)
    assert {one.bytes_a_sample for one in (first, second, third)} == {384 * 4}
    assert (first.client_parameters, first.server_parameters) == (6 * 9 + 6, 384 * 10 + 10)
    assert cuts(CutModel("cnn"), SHAPE, 10)


def test_a_layer_that_is_used_on_both_sides_counts_on_both(mine):
    found = cuts("mine:twice", SHAPE, 10)
    assert [one.server_parameters for one in found] == [4160 + 650, 4160 + 650, 650]
