"""A spec becomes cells: every combination once, the impossible refused before anything starts."""

from pathlib import Path
from typing import ClassVar

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.options import Option
from split_unlearning.simulations.benchmark.spec import (
    find_spec,
    read_spec,
    referring,
    retrained,
    shipped_specs,
)
from split_unlearning.simulations.config import RunConfig
from split_unlearning.unlearning.methods import FineTuning
from tests.refusals import refusal

GRID = {"strategy": ["vanilla", "splitwiper"], "unlearning": ["retrain", "fine-tune"]}


@pytest.fixture
def read(tmp_path):
    def write_and_read(spec, scale="full", **changed):
        path = tmp_path / "spec.toml"
        path.write_text(spec if isinstance(spec, str) else tomli_w.dumps(spec))
        return read_spec(path, scale, changed)

    return write_and_read


def test_every_combination_is_a_cell_seed_by_seed(read):
    spec = read({"clients": 4, "run": {"server-epochs": 3}, "grid": [{**GRID, "seed": [1, 2]}]})
    assert [
        (one.seed, one.coordinates["strategy"], one.coordinates["unlearning"]) for one in spec.cells
    ] == [
        (seed, strategy, unlearning)
        for seed in (1, 2)
        for strategy in ("vanilla", "splitwiper")
        for unlearning in ("retrain", "fine-tune")
    ]
    assert spec.axes == ["strategy", "unlearning"]
    assert all(one.clients == 4 for one in spec.cells)
    assert all(one.settings["server-epochs"] == 3 for one in spec.cells)


def test_what_two_grids_name_is_run_once(read):
    once = read({"grid": [GRID]})
    twice = read({"grid": [GRID, {**GRID, "strategy": "vanilla"}]})
    assert [one.id for one in twice.cells] == [one.id for one in once.cells]


def test_the_seeds_of_all_grids_go_together_and_shadow_runs_with_their_targets(read):
    grids = [{"strategy": name, "seed": [4, 1]} for name in ("vanilla", "splitwiper")]
    spec = read({"grid": grids, "shadows": {"count": 1}})
    assert [(one.seed, one.role, one.coordinates["strategy"]) for one in spec.cells] == [
        (seed, role, strategy)
        for seed in (4, 1)
        for role in ("target", "shadow")
        for strategy in ("vanilla", "splitwiper")
    ]


def test_the_number_of_clients_can_vary(read):
    spec = read({"grid": [{"clients": [2, 3], "strategy": "vanilla"}]})
    assert [one.clients for one in spec.cells] == [2, 3]
    assert [one.coordinates["clients"] for one in spec.cells] == [2, 3]


@settings(max_examples=20)
@given(
    axes=st.dictionaries(
        st.sampled_from(["server-epochs", "pretrain-epochs", "batch-size"]),
        st.lists(st.integers(1, 50), min_size=1, max_size=3, unique=True),
        min_size=1,
    ),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_cells_have_names_of_their_own_and_settings_that_are_read_back(
    tmp_path_factory, axes, seeds
):
    path = tmp_path_factory.mktemp("spec") / "spec.toml"
    path.write_text(tomli_w.dumps({"grid": [{**axes, "seed": seeds}]}))
    cells = read_spec(path, "full", {}).cells
    expected = len(seeds)
    for values in axes.values():
        expected *= len(values)
    assert len({one.id for one in cells}) == len(cells) == expected
    for one in cells:
        assert Path(one.id).name == one.id
        config = RunConfig.from_mapping(one.settings).as_mapping()
        assert {key: config[key] for key in axes} == one.coordinates


def test_what_the_command_line_sets_goes_before_the_table_run(read):
    spec = read({"run": {"server-epochs": 3}, "grid": [GRID]}, **{"server-epochs": 5})
    assert {one.settings["server-epochs"] for one in spec.cells} == {5}


def test_a_small_machine_runs_what_the_table_small_says(read):
    written = {
        "title": "T",
        "run": {"server-epochs": 9, "batch-size": 16},
        "grid": [GRID],
        "small": {
            "reduced": ["2 epochs of 9"],
            "run": {"server-epochs": 2},
            "grid": [{"strategy": "vanilla"}],
        },
    }
    full, small = read(written), read(written, "small")
    assert (len(full.cells), full.reduced) == (4, [])
    (cell,) = small.cells
    assert cell.settings == {"strategy": "vanilla", "server-epochs": 2, "batch-size": 16}
    assert (small.scale, small.reduced, small.title) == ("small", ["2 epochs of 9"], "T")


def test_what_full_runs_can_judge_reduced_ones_cannot_unless_the_spec_says_so(read):
    written = {"claims": ["hit-rate"], "grid": [GRID], "medium": {}}
    written["small"] = {"claims": ["label-gone"]}
    scales = ("full", "medium", "small")
    assert [read(written, scale).claims for scale in scales] == [["hit-rate"], [], ["label-gone"]]
    assert read(written, **{"server-epochs": 3}).changed == ["server-epochs"]


def test_what_cannot_be_is_left_out_where_the_grid_says_so(read):
    grid = {"strategy": ["vanilla", "splitwiper"], "client-sync": ["none", "handoff"]}
    with pytest.raises(UserError, match="client-sync"):
        read({"grid": [grid]})
    spec = read({"grid": [{**grid, "only-possible": True, "seed": [0, 1]}]})
    assert len(spec.cells) == 6
    (left,) = spec.left_out
    assert left["coordinates"] == {"strategy": "splitwiper", "client-sync": "handoff"}
    assert "client-sync" in left["why"]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (
            {"strategy": ["vanilla", "splitwiper"], "client-sync": "handoff"},
            "put client-sync in a [[grid]] of its own, for vanilla, gradient-projection, u-shaped;",
        ),
        (
            {"unlearning": ["retrain", "fine-tune"], "fine-tune-epochs": 2},
            "put fine-tune-epochs in a [[grid]] of its own, for fine-tune, gradient-ascent;",
        ),
        (
            {"distribution": ["iid", "dirichlet"], "dirichlet-alpha": 0.25},
            "put dirichlet-alpha in a [[grid]] of its own, for dirichlet;",
        ),
        (
            {"unlearning": ["retrain", f"{__name__}:Tuned"], "options": "tuned-epochs=2"},
            "put options in a [[grid]] of its own, for the strategy or method that reads tuned-ep",
        ),
    ],
)
def test_a_key_that_one_row_ignores_is_refused_with_what_to_do(read, grid, said):
    line = refusal(read, {"grid": [grid]}, error=UserError)
    assert said in line
    assert line.endswith("only-possible = true leaves out the rows that cannot be")


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("[[grid]\n", "no spec"),
        ("", "no grid"),
        ("grid = 3\n", "no grid"),
        ("titel = 'x'\n[[grid]]\n", "titel"),
        ("clients = 0\n[[grid]]\n", "clients=0"),
        ("clients = 'five'\n[[grid]]\n", "clients='five'"),
        ("reduced = 'one'\n[[grid]]\n", "reduced='one'"),
        ("claims = ['cost']\n[[grid]]\n", "claims='cost'"),
        ("paper = ['table']\n[[grid]]\n", "paper='table'"),
        ("[run]\nserver-epoch = 3\n[[grid]]\n", "server-epochs?"),
        ("[[grid]]\nserver-epochs = [1, 'many']\n", "server-epochs='many'"),
        ("[[grid]]\nserver-epochs = []\n", "names no run"),
        ("[[grid]]\nout = '/x'\n", "out='/x'"),
        ("[[grid]]\nstate-dir = '/x'\n", "state-dir='/x'"),
        ("[[grid]]\nstrategy = 'nope'\n", "strategy='nope'"),
        ("[[grid]]\nforget = 'class:none'\n", "class:none"),
        ("[[grid]]\nonly-possible = 1\n", "only-possible=1"),
        ("[shadows]\nmany = 1\n[[grid]]\n", "many"),
        ("run = 3\n[[grid]]\n", "run=3"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line_that_names_the_file(read, tmp_path, written, named):
    line = refusal(read, written, error=UserError)
    assert named in line
    assert str(tmp_path / "spec.toml") in line


def test_there_is_no_small_scale_where_a_spec_has_none(read):
    assert "small" in refusal(read, "[[grid]]\n", "small", error=UserError)
    assert "--scale='tiny'" in refusal(read, "[[grid]]\n", "tiny", error=UserError)


def test_a_spec_is_found_by_its_path_or_by_its_name(tmp_path):
    (tmp_path / "mine.toml").touch()
    assert find_spec(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"
    assert find_spec("quick") == shipped_specs()["quick"]
    line = refusal(find_spec, "quik", error=UserError)
    assert "SPEC='quik'" in line
    assert "quick" in line


@pytest.mark.parametrize("name", shipped_specs())
@pytest.mark.parametrize("scale", ["full", "small"])
def test_a_spec_that_comes_along_reads(name, scale, monkeypatch):
    path = shipped_specs()[name]
    if scale == "small" and "[small]" not in path.read_text():
        pytest.skip(f"{name} has no small scale: it is small")
    about = {word for word in ("cifar10", "agnews") if word in path.read_text()}
    changed = {}
    for word in about:
        data = Path(__file__).parents[4] / "shared" / "data" / f"{word}-subset.npz"
        if not data.exists():
            pytest.skip(f"{name} is about data that are not there: {data}")
        changed["dataset"] = f"npz:{data}"
    if scale == "small" and "agnews" in about:
        pytest.importorskip("transformers", reason="the extra [text] is not installed")
    if scale == "full":
        # To deal tens of thousands of samples for hundreds of runs takes minutes.
        monkeypatch.setattr(
            "split_unlearning.simulations.benchmark.spec.prepare", lambda config, _: config.check()
        )
    spec = read_spec(path, scale, changed)
    assert spec.title
    assert scale == "full" or spec.reduced


def test_the_run_beside_it_that_retrains_has_no_key_of_another_method():
    chosen = {
        "strategy": "gradient-projection",
        "unlearning": "gradient-projection",
        "projection-beta": 0.5,
        "client-sync": "handoff",
        "seed": 3,
    }
    again = retrained(chosen)
    assert again == {"strategy": "gradient-projection", "client-sync": "handoff", "seed": 3}
    config = RunConfig.from_mapping(again)
    config.check()
    assert config.unlearning == "retrain"


class Tuned(FineTuning):
    """A method of another package, with a setting of its own."""

    own_options: ClassVar = {"tuned-epochs": Option(3, "an integer > 0", lambda n: n > 0)}


def referenced(spec):
    """Return the coordinates of each cell's reference, by those of the cell."""
    named = {one.id: one.coordinates for one in spec.cells}
    found = referring(spec.cells)
    return [(one.coordinates, named.get(one.reference)) for one in found]


def test_settings_of_another_packages_method_do_not_hide_the_run_that_retrains(read):
    tuned = {"unlearning": f"{__name__}:Tuned", "options": "tuned-epochs=2"}
    retrain = {"unlearning": "retrain"}
    spec = read({"shadows": {"count": 1}, "grid": [retrain, tuned]})
    cells = [cell for cell in referenced(spec) if cell[0] == tuned]
    assert cells == [(tuned, retrain)]
    # An attack on both learns from one shadow run.
    assert [cell.role for cell in spec.cells] == ["target", "target", "shadow"]


PROJECTED = {"strategy": "gradient-projection", "unlearning": "gradient-projection"}


@pytest.mark.parametrize("strategy", ["vanilla", "gradient-projection"])
@pytest.mark.parametrize("sync", ["handoff", "none"])
def test_vanilla_and_the_strategy_that_caches_its_gradients_retrain_alike(read, strategy, sync):
    retrain = {"strategy": strategy, "client-sync": "handoff"}
    projected = [
        {"strategy": name, "unlearning": "gradient-projection", "client-sync": sync}
        for name in ("vanilla", "gradient-projection")
    ]
    found = referenced(read({"grid": [retrain, *projected]}))
    reference = retrain if sync == "handoff" else None
    assert found == [(retrain, retrain), *((one, reference) for one in projected)]


def test_a_cell_beside_which_nothing_retrains_has_no_reference(read):
    spec = read({"grid": [{"strategy": "vanilla", "unlearning": "fine-tune"}]})
    assert [one.reference for one in referring(spec.cells)] == [""]


def test_an_axis_has_several_values_within_a_grid_or_between_grids(read):
    vanilla = {"strategy": "vanilla", "client-sync": "handoff"}
    splitwiper = {"strategy": "splitwiper", "server-epochs": [1, 2], "batch-size": 8}
    assert read({"grid": [vanilla, splitwiper]}).axes == ["strategy", "server-epochs"]
