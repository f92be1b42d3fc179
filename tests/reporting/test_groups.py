"""Rows of the tables: which cells belong together, and what tells them apart."""

import pytest

from split_unlearning.reporting.benchmark import read_benchmark
from split_unlearning.reporting.groups import constant, make_groups, shown
from tests.reporting.synthetic import Bench


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, axes=["strategy", "unlearning", "server-epochs"])


def groups_of(bench):
    found = read_benchmark(bench.folder)
    return make_groups(found.cells, found.axes)


def names(groups):
    return [group.name().text for group in groups]


def test_cells_that_differ_in_their_seed_alone_are_one_row(bench):
    for seed in (2, 0, 1):
        bench.cell(strategy="vanilla", seed=seed)
    bench.cell(strategy="splitwiper", seed=0)
    one, other = groups_of(bench)
    assert [cell.seed for cell in one.cells] == [0, 1, 2]
    assert len(other.cells) == 1


def test_the_number_of_clients_tells_rows_apart(bench):
    bench.cell(strategy="vanilla", clients=10)
    bench.cell(strategy="vanilla", clients=5)
    groups = groups_of(bench)
    assert [group.axes for group in groups] == [("clients",)] * 2
    assert names(groups) == ["clients 5", "clients 10"]


def test_axes_are_what_varies_in_the_order_of_the_specification(bench):
    for epochs in (10, 5):
        for strategy in ("vanilla", "splitwiper"):
            bench.cell(server_epochs=epochs, strategy=strategy, unlearning="retrain", model="cnn")
    groups = groups_of(bench)
    assert groups[0].axes == ("strategy", "server-epochs")
    # Numbers by size, names as they come first.
    assert names(groups) == [
        "vanilla · server-epochs 5",
        "vanilla · server-epochs 10",
        "splitwiper · server-epochs 5",
        "splitwiper · server-epochs 10",
    ]
    assert constant(read_benchmark(bench.folder).cells) == {
        "unlearning": "retrain",
        "model": "cnn",
        "clients": 2,
    }


def test_what_follows_from_the_axes_is_for_the_csv(bench):
    bench.cell(strategy="vanilla", init_from="splitwiper")
    bench.cell(strategy="splitwiper", init_from="fresh")
    groups = groups_of(bench)
    assert groups[0].axes == ("strategy",)
    assert groups[0].others == ("init-from",)
    assert names(groups) == ["vanilla", "splitwiper"]
    assert [label.text for label in groups[0].labels()] == ["vanilla", "splitwiper"]


def test_a_coordinate_that_a_cell_does_not_have_is_nowhere(bench):
    bench.cell(strategy="splitwiper-plus", expansion="3")
    bench.cell(strategy="splitwiper-plus", expansion="1-3")
    bench.cell(strategy="splitwiper")
    groups = groups_of(bench)
    assert names(groups) == [
        "splitwiper-plus · expansion 3",
        "splitwiper-plus · expansion 1-3",
        "splitwiper",
    ]
    assert groups[2].labels()[1] is None


def test_a_note_on_the_paper_is_no_axis(bench):
    bench.cell(strategy="vanilla", paper_dataset="CIFAR-10")
    bench.cell(strategy="vanilla", paper_dataset="CIFAR-100", seed=1)
    (group,) = groups_of(bench)
    assert group.axes == ("strategy",)
    assert names([group]) == ["vanilla"]


def test_cells_without_coordinates_are_called_by_their_strategy(bench):
    bench.cell()
    assert names(groups_of(bench)) == ["splitwiper"]


@pytest.mark.parametrize(
    ("value", "text", "full"),
    [
        ("my_package.protocol:Mine", "Mine", "my_package.protocol:Mine"),
        ("module:Mine", "Mine", "module:Mine"),
        ("class:bird", "class:bird", ""),
        ("samples:0.5@class:2", "samples:0.5@class:2", ""),
        ("npz:/data/my-images.npz", "npz:my-images.npz", "npz:/data/my-images.npz"),
        ("npz:/a/b.npz+npz:/c/d.npz", "npz:b.npz+npz:d.npz", "npz:/a/b.npz+npz:/c/d.npz"),
        ("class:1;ids:/a/b.txt", "class:1;ids:b.txt", "class:1;ids:/a/b.txt"),
        ("class:Sci/Tech", "class:Sci/Tech", ""),
        ("torchvision:resnet18", "torchvision:resnet18", ""),
        ("retrain", "retrain", ""),
        (0.1, "0.1", ""),
        (30, "30", ""),
        (True, "true", ""),
        (None, "none", ""),
        ([1, 2], "[1, 2]", ""),
    ],
)
def test_a_coordinate_is_shown_short_and_kept_whole(value, text, full):
    label = shown(value)
    assert (label.text, label.full) == (text, full)
