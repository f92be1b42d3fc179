"""Names and what they stand for."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from split_unlearning.foundations import registry as registry_module
from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.registry import Registry, load_object
from split_unlearning.models.cnn import cnn
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.registry import STRATEGIES


@pytest.fixture
def offered(monkeypatch):
    """Return a dict of names to dotted paths that other packages offer in the group `colours`."""
    points = {}

    def entry_points(*, group):
        return [
            EntryPoint(name=name, value=path, group=group)
            for name, path in points.items()
            if group == "colours"
        ]

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    monkeypatch.setattr(registry_module, "offered", registry_module.offered.__wrapped__)
    return points


@pytest.fixture
def paint(monkeypatch):
    """Return a module named `paint` that can be imported."""
    module = ModuleType("paint")
    module.blue = object()
    monkeypatch.setitem(sys.modules, "paint", module)
    return module


def refusal(call, *arguments):
    """Return the one line with which a call is refused."""
    with pytest.raises(UserError) as refused:
        call(*arguments)
    message = str(refused.value)
    assert message
    assert "\n" not in message
    return message


def test_a_built_in_object_is_returned_as_it_is():
    registry = Registry("colour")
    red = object()
    registry.register("red", red)
    assert registry.get("red") is red
    assert registry.names() == ["red"]


def test_a_built_in_path_is_imported_only_when_it_is_asked_for(monkeypatch, tmp_path):
    (tmp_path / "lazy_paint.py").write_text("green = ['green']\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("colour")
    registry.register("green", "lazy_paint:green")
    registry.register("broken", "lazy_paint:brown")
    assert registry.names() == ["broken", "green"]
    assert "lazy_paint" not in sys.modules
    try:
        assert registry.get("green") == ["green"]
        assert registry.get("green") is registry.get("green")
    finally:
        sys.modules.pop("lazy_paint", None)


def test_an_entry_point_of_the_group_is_found_and_listed(offered, paint):
    offered["blue"] = "paint:blue"
    registry = Registry("colour", group="colours")
    registry.register("red", 1)
    assert registry.get("blue") is paint.blue
    assert registry.names() == ["blue", "red"]


def test_entry_points_are_not_read_without_a_group_or_from_another(offered, paint):
    offered["blue"] = "paint:blue"
    for registry in (Registry("colour"), Registry("colour", group="shapes")):
        assert registry.names() == []
        assert "'blue'" in refusal(registry.get, "blue")


def test_a_name_that_is_registered_twice_stands_for_nothing(offered, paint):
    offered["red"] = "paint:blue"
    registry = Registry("colour", group="colours")
    registry.register("red", 1)
    assert registry.names() == ["red"]
    assert refusal(registry.get, "red") == "colour 'red' is registered twice: built in, paint:blue"


def test_two_packages_that_offer_one_name_are_both_named(monkeypatch, paint):
    def offers(*paths):
        found = [EntryPoint("red", path, "colours") for path in paths]
        monkeypatch.setattr(registry_module, "entry_points", lambda group: found)
        registry_module.offered.cache_clear()

    registry = Registry("colour", group="colours")
    offers("paint:blue", "other:red")
    assert refusal(registry.get, "red") == "colour 'red' is registered twice: other:red, paint:blue"
    # One package that is found twice is one package.
    offers("paint:blue", "paint:blue")
    assert registry.get("red") is paint.blue


def test_a_dotted_path_is_imported(paint):
    assert Registry("colour").get("paint:blue") is paint.blue
    assert Registry("model").get("split_unlearning.models.cnn:cnn") is cnn


def test_an_unknown_name_lists_the_names(offered, paint):
    offered["blue"] = "paint:blue"
    registry = Registry("colour", group="colours")
    registry.register("red", 1)
    assert refusal(registry.get, "rde") == (
        "colour='rde' is not possible; allowed: blue, red, or package.module:Object"
    )


def test_a_name_is_given_once():
    registry = Registry("colour")
    registry.register("red", 1)
    assert refusal(registry.register, "red", 2) == "colour 'red' is registered twice"
    assert registry.get("red") == 1


@pytest.mark.parametrize(
    "path", ["no_such_package:x", "paint:missing", "paint:", ":blue", ":", "paint.blue:x"]
)
def test_a_path_that_does_not_import_is_refused_with_itself(paint, path):
    for call in (Registry("colour").get, lambda path: load_object("colour", path)):
        message = refusal(call, path)
        assert message.startswith(f"colour={path!r} does not import (")
        assert "package.module:Object" in message


@pytest.mark.parametrize("path", [".paint:blue", "..:blue"])
def test_a_relative_path_is_refused_with_itself(path):
    assert repr(path) in refusal(Registry("colour").get, path)


def test_an_entry_point_that_does_not_import_is_refused_with_its_path(offered):
    offered["blue"] = "no_such_package:blue"
    message = refusal(Registry("colour", group="colours").get, "blue")
    assert "'no_such_package:blue'" in message


def test_what_came_from_outside_is_checked(offered, paint):
    offered["blue"] = "paint:blue"
    seen = []

    def check(value):
        seen.append(value)
        return "it is too blue"

    registry = Registry("colour", group="colours", check=check)
    for name in ("blue", "paint:blue"):
        message = refusal(registry.get, name)
        assert message == f"colour={name!r} does not fit: it is too blue"
    assert seen == [paint.blue, paint.blue]


def test_a_refusal_names_the_key_the_value_and_what_is_allowed():
    assert str(refuse("seed", -1, "an integer >= 0")) == (
        "seed=-1 is not possible; allowed: an integer >= 0"
    )
    assert "\n" not in str(refuse("seed", "a\nb", "no line breaks"))


def _strategy(**attributes):
    """Return a strategy's class with some of its parts left out (None)."""
    parts = {
        "client": "package.module:Client",
        **dict.fromkeys(("learn", "unlearn"), lambda *_: None),
        **attributes,
    }
    return type("Toy", (SplitStrategy,), {name: part for name, part in parts.items() if part})


@pytest.mark.parametrize("name", ["splitwiper", "vanilla"])
def test_the_built_in_strategies_fit(name):
    strategy = STRATEGIES.get(name)
    assert issubclass(strategy, SplitStrategy)
    assert ":" in strategy.client


def test_a_whole_strategy_of_a_stranger_is_accepted(paint):
    paint.Toy = _strategy()
    assert STRATEGIES.get("paint:Toy") is paint.Toy


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (_strategy(learn=None), "does not define learn"),
        (_strategy(unlearn=None), "does not define unlearn"),
        (_strategy(learn=None, unlearn=None), "does not define learn, unlearn"),
        (_strategy(client=None), "does not name its client class"),
        (_strategy(client="package.module.Client"), "does not name its client class"),
        (_strategy(client=3), "does not name its client class"),
        (_strategy, "is a subclass of split_unlearning.SplitStrategy"),
        (dict, "is a subclass of split_unlearning.SplitStrategy"),
    ],
)
def test_a_strategy_that_lacks_something_is_refused_with_what_it_lacks(paint, value, complaint):
    paint.Toy = value
    message = refusal(STRATEGIES.get, "paint:Toy")
    assert message.startswith("strategy='paint:Toy' does not fit: ")
    assert complaint in message


def test_a_module_of_ours_by_its_bare_name_is_refused_and_a_users_own_is_not(tmp_path, monkeypatch):
    refused = refusal(load_object, "model", "models.cnn:cnn")
    assert "split_unlearning.models.cnn:cnn now" in refused
    for name in [name for name in sys.modules if name.partition(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cnn.py").write_text("cnn = 'mine'")
    (tmp_path / "models" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert load_object("model", "models.cnn:cnn") == "mine"
