"""Arrows point one way: who may import whom."""

import ast
import graphlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A room, and what it may import of the others. ARCHITECTURE.md draws the same.
BELOW = {"foundations", "models", "unlearning", "transport"}
ALLOWED = {
    "foundations": set(),
    "models": {"foundations"},
    "unlearning": {"foundations", "models"},
    "transport": {"foundations", "models"},
    "evaluation": {"foundations"},
    "clients": BELOW,
    "strategies": BELOW,
    "reporting": {"foundations"},
    "simulations": {*BELOW, "evaluation", "clients", "strategies", "reporting"},
}
# The same of the rooms in simulations/.
INSIDE = {
    "data": set(),
    "state": {"data"},
    "session": {"data", "state"},
    "launching": set(),
    "benchmark": {"data", "launching", "session"},
    "command_line": {"benchmark", "data", "launching", "session", "state"},
    "python": {"benchmark", "command_line", "data", "launching", "session", "state"},
}
# Rooms within those rooms.
INNER = {"data/distributions", "data/loaders"}
WITHOUT_FLOWER = set(ALLOWED) - {"clients", "strategies", "simulations"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


def rooms(path):
    """The rooms that a file imports, and where in them; a room's bare name is none of ours."""
    for name in imports(path):
        package, _, inside = name.partition(".")
        assert package not in ALLOWED, f"{path} imports {name} without split_unlearning"
        if package == "split_unlearning":
            yield inside


def imported_by(room):
    return {
        name.removeprefix("split_unlearning.").partition(".")[0]: path.name
        for path in sorted((ROOT / room).rglob("*.py"))
        for name in imports(path)
    }


def test_nobody_imports_a_room_by_its_bare_name():
    places = (*ALLOWED, "benchmarks", "examples", "split_unlearning", "tests")
    assert {
        name for place in places for path in (ROOT / place).rglob("*.py") for name in rooms(path)
    }


def test_every_room_is_linked_to_from_the_package():
    links = {path.name for path in (ROOT / "split_unlearning").iterdir() if path.is_symlink()}
    assert links == set(ALLOWED)
    assert all((ROOT / "split_unlearning" / room).samefile(ROOT / room) for room in links)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_stands_below_it(room):
    found = imported_by(room)
    assert found, f"{room} is empty"
    others = set(ALLOWED) - {room} - ALLOWED[room]
    assert {other: found[other] for other in others & found.keys()} == {}
    assert "tests" not in found
    assert "plugin" not in found


def test_no_modules_import_each_other_in_a_circle():
    imported = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): set(rooms(path))
        for room in ALLOWED
        for path in (ROOT / room).rglob("*.py")
    }
    assert len(tuple(graphlib.TopologicalSorter(imported).static_order())) >= len(imported)


@pytest.mark.parametrize("room", INSIDE)
def test_a_room_of_the_simulations_imports_only_what_stands_below_it(room):
    folder = ROOT / "simulations" / room
    found = {
        name.split(".")[1]
        for path in folder.rglob("*.py")
        for name in rooms(path)
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
        ours = {name for name in rooms(path) if name.startswith("simulations.")}
        known = {"simulations.data.dataset", "simulations.data.loaders.source"}
        assert ours <= known, path


@pytest.mark.parametrize("room", [*sorted(WITHOUT_FLOWER), "clients/label_privacy"])
def test_what_can_do_without_flower_and_ray_does(room):
    assert {"flwr", "ray"} & imported_by(room).keys() == set()


def test_masking_knows_no_client():
    paths = (ROOT / "clients" / "label_privacy").glob("*.py")
    found = {name for path in paths for name in rooms(path) if name.startswith("clients")}
    assert found
    assert {name for name in found if not name.startswith("clients.label_privacy.")} == set()


def test_reports_are_made_of_files_alone():
    assert "torch" not in imported_by("reporting")


def test_ray_is_known_to_the_placement_of_the_server_segment_alone():
    knowing = {
        path.relative_to(ROOT).as_posix()
        for room in ALLOWED
        for path in (ROOT / room).rglob("*.py")
        if "ray" in {name.partition(".")[0] for name in imports(path)}
    }
    assert knowing == {"strategies/server/placement.py"}


def names_in(path):
    """Every name that a module defines, uses or imports, and every text that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value
        else:
            yield from (value for value in vars(node).values() if isinstance(value, str))


# They list names that a user types, each beside the dotted path that it stands for.
LISTS = {"strategies/registry.py", "unlearning/methods.py"}


def test_gradient_projection_is_known_to_its_own_rooms_alone():
    knowing = {
        path.relative_to(ROOT).as_posix()
        for room in ALLOWED
        for path in (ROOT / room).rglob("*.py")
        if "gradient_projection" not in path.relative_to(ROOT).as_posix()
        and any(re.search("gradient.?projection", name, re.IGNORECASE) for name in names_in(path))
    }
    assert knowing <= LISTS


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
    build = project["tool"]["hatch"]["build"]["targets"]
    door = {f"split_unlearning/{name}" for name in ("__init__.py", "plugin.py", "py.typed")}
    assert set(build["wheel"]["only-include"]) == {*door, *ALLOWED}
    assert build["wheel"]["sources"] == {room: f"split_unlearning/{room}" for room in ALLOWED}
    assert set(build["sdist"]["only-include"]) > {*door, *ALLOWED}
    bundle = {line.partition("/")[0] for line in project["tool"]["flwr"]["app"]["fab-include"]}
    assert bundle == {*ALLOWED, "split_unlearning"}
