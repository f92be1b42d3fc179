"""Arrows point one way: who may import whom."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A room, and what it may import of the others. ARCHITECTURE.md draws the same.
ALLOWED = {
    "models": set(),
    "unlearning": {"models"},
    "transport": {"models"},
    "clients": {"models", "unlearning", "transport"},
    "strategies": {"models", "unlearning", "transport"},
    "simulations": {"models", "unlearning", "transport", "clients", "strategies"},
}
# The same of the rooms in simulations/.
INSIDE = {
    "data": set(),
    "state": {"data"},
    "session": {"data", "metrics", "state"},
    "command_line": {"data", "state", "session"},
    "commands": {"benchmark", "command_line", "data", "reporting", "session", "state"},
    "metrics": set(),
    "benchmark": {"command_line", "data", "metrics", "session"},
    "reporting": set(),
}
# Rooms within those rooms.
INNER = {
    "data/loaders",
    "reporting/figures",
    "reporting/formats",
    "reporting/published",
    "reporting/tables",
}
WITHOUT_FLOWER = {"models", "unlearning", "transport"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


def imported_by(room):
    return {
        name.partition(".")[0]: path.name
        for path in sorted((ROOT / room).rglob("*.py"))
        for name in imports(path)
    }


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_stands_below_it(room):
    found = imported_by(room)
    assert found, f"{room} is empty"
    others = set(ALLOWED) - {room} - ALLOWED[room]
    assert {other: found[other] for other in others & found.keys()} == {}
    assert "tests" not in found
    assert "split_unlearning" not in found


@pytest.mark.parametrize("room", INSIDE)
def test_a_room_of_the_simulations_imports_only_what_stands_below_it(room):
    folder = ROOT / "simulations" / room
    found = {
        name.split(".")[1]
        for path in folder.rglob("*.py")
        for name in imports(path)
        if name.startswith("simulations.")
    }
    assert found & (set(INSIDE) - {room} - INSIDE[room]) == set()
    assert {"cli", "client_app", "server_app"} & found == set()


def test_every_room_of_the_simulations_is_known():
    found = (ROOT / "simulations").rglob("__init__.py")
    folders = {path.parent.relative_to(ROOT / "simulations").as_posix() for path in found}
    assert folders == {".", *INSIDE, *INNER}


def test_a_loader_knows_the_data_set_that_it_returns_and_nothing_else_of_the_room():
    for path in (ROOT / "simulations" / "data" / "loaders").glob("*.py"):
        ours = {name for name in imports(path) if name.startswith("simulations.")}
        known = {"simulations.data.dataset", "simulations.data.loaders.source"}
        assert ours <= known, path


@pytest.mark.parametrize(
    "room", [*sorted(WITHOUT_FLOWER), "clients/label_privacy", "simulations/reporting"]
)
def test_what_can_do_without_flower_and_ray_does(room):
    assert {"flwr", "ray"} & imported_by(room).keys() == set()


def test_masking_knows_no_client():
    paths = (ROOT / "clients" / "label_privacy").glob("*.py")
    found = {name for path in paths for name in imports(path) if name.startswith("clients")}
    assert found
    assert {name for name in found if not name.startswith("clients.label_privacy.")} == set()


def test_reports_are_made_of_files_alone():
    found = imported_by("simulations/reporting").keys()
    assert found & set(ALLOWED) == {"models", "simulations"}
    assert "torch" not in found


def test_ray_is_known_to_the_placement_of_the_server_segment_alone():
    knowing = {
        path.relative_to(ROOT).as_posix()
        for room in ALLOWED
        for path in (ROOT / room).rglob("*.py")
        if "ray" in {name.partition(".")[0] for name in imports(path)}
    }
    assert knowing == {"strategies/placement.py"}


def test_the_recorddict_compatibility_layer_is_known_to_one_module():
    knowing = {
        path.relative_to(ROOT).as_posix()
        for room in ALLOWED
        for path in (ROOT / room).rglob("*.py")
        if any(name.startswith("flwr.compat") for name in imports(path))
    }
    assert knowing == {"simulations/session/conversation.py"}


def test_every_room_is_packaged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    bundle = {line.partition("/")[0] for line in project["tool"]["flwr"]["app"]["fab-include"]}
    assert wheel == bundle == {*ALLOWED, "split_unlearning.py"}
