"""Figures: what is drawn is what was measured, and it is said in words and in a table, too."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from split_unlearning.reporting.benchmark import read_benchmark
from split_unlearning.reporting.figures.by_epoch import accuracy_by_epoch
from split_unlearning.reporting.figures.by_setting import by_settings
from split_unlearning.reporting.figures.chart import (
    COLOURS,
    Axis,
    Chart,
    Curve,
    Point,
    line_style,
)
from split_unlearning.reporting.figures.clustering import clustering_accuracy
from split_unlearning.reporting.figures.drawing import inline, save
from split_unlearning.reporting.figures.figure import Panel
from split_unlearning.reporting.figures.forgetting_cost import forgetting_against_cost
from split_unlearning.reporting.figures.label_distribution import label_distribution
from split_unlearning.reporting.figures.roc import membership_roc
from split_unlearning.reporting.results import read_results
from tests.reporting.synthetic import Bench, client, matching, membership, metrics, phase


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def read(bench):
    return read_results(read_benchmark(bench.folder))


def rows(figure):
    return [
        tuple(getattr(one, "mean", getattr(one, "text", None)) for one in row.values())
        for row in figure.data.rows()
    ]


def drawn(picture):
    """Return a picture of the page as XML: it has to be well-formed."""
    return ElementTree.fromstring(inline(Panel("heading", picture), "name"))


def texts(picture):
    return [one.text for one in picture.iter("text")]


def assert_speaks(figure):
    assert figure.caption
    assert len(figure.data.frame)
    for panel in (*figure.panels, *(panel for _, more in figure.folded for panel in more)):
        picture = drawn(panel.picture)
        assert picture.get("role") == "img"
        said = picture.find("title").text
        assert said == picture.get("aria-label")
        assert len(said) > 20


def chart(xs, ys, log=False):
    points = tuple(Point(x, y, f"{x} {y}") for x, y in zip(xs, ys, strict=True))
    return Chart((Curve("c", points, 0),), Axis("x", log=log), Axis("y"), "all of it in words")


values = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=8)


@settings(deadline=None, max_examples=10)
@example([5e-324])
@example([0.0, 5e-324])
@given(values)
def test_all_values_lie_between_the_ends_of_their_axes(found):
    (axes,) = chart(range(len(found)), found).draw().axes
    low, high = axes.get_ylim()
    slack = 1e-6 * (high - low)
    assert all(low - slack <= value <= high + slack for value in found)
    assert len(axes.get_yticks()) >= 2


@settings(deadline=None, max_examples=10)
@given(st.lists(st.floats(1e-6, 1e12), min_size=1, max_size=8))
def test_a_logarithmic_axis_has_a_place_for_nothing(found):
    (axes,) = chart([0.0, *found], [1.0] * (len(found) + 1), log=True).draw().axes
    places = axes.transData.transform([(value, 1.0) for value in (0.0, *sorted(found))])[:, 0]
    assert list(places) == sorted(places)
    assert axes.get_xlim()[0] <= 0


def test_a_point_stands_where_its_value_is_and_says_it():
    picture = drawn(chart([0, 10], [0, 1]))
    marks = [one for one in picture.iter("use") if one.find("title") is not None]
    assert [one.find("title").text for one in marks] == ["c: 0 0", "c: 10 1"]
    (left, low), (right, high) = ((float(one.get("x")), float(one.get("y"))) for one in marks)
    assert left < right
    assert low > high


def test_a_picture_of_the_page_has_its_colours_and_no_style():
    text = inline(Panel("heading", chart([0, 1], [0, 1])), "name")
    assert "var(--s0)" in text
    assert "var(--line)" in text
    assert not re.search(r"style=|<style|clip-path|#[0-9a-f]{6}|metadata", text)
    assert all(one.startswith("name-") for one in re.findall(r' id="([^"]*)"', text))


def test_no_two_of_many_styles_look_alike():
    looks = {
        (look["color"], look["marker"], look["markerfacecolor"])
        for look in map(line_style, range(COLOURS * COLOURS))
    }
    assert len(looks) == COLOURS * COLOURS


def test_the_files_of_a_figure_fit_a_column_and_have_the_legend(bench, tmp_path):
    for strategy in ("vanilla", "splitwiper"):
        epochs = [{"epoch": one, "unlearned": 0.5, "retained": None} for one in (1, 2)]
        bench.cell(phase(by_epoch=epochs), strategy=strategy, momentum="$x$ \u0000 <b>")
    figure = accuracy_by_epoch(read(bench))
    names = save(figure, tmp_path)
    assert names == [f"accuracy-by-epoch.{kind}" for kind in ("pdf", "svg", "png")]
    assert (tmp_path / names[0]).read_bytes().startswith(b"%PDF")
    assert (tmp_path / names[2]).read_bytes().startswith(b"\x89PNG")
    picture = ElementTree.parse(tmp_path / names[1]).getroot()
    assert float(picture.get("width").removesuffix("pt")) <= 3.5 * 72
    said = [one.text for one in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"vanilla", "splitwiper", "accuracy, %"} <= set(said)
    before = [(tmp_path / name).read_bytes() for name in names]
    save(figure, tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == before


def test_accuracy_by_epoch_is_the_mean_over_seeds(bench):
    for seed in range(2):
        epochs = [
            {"epoch": epoch, "unlearned": 0.1 * epoch, "retained": 0.2 * epoch + 0.1 * seed}
            for epoch in (1, 2)
        ]
        bench.cell(phase(by_epoch=epochs), phase(1, by_epoch=[]), seed=seed, strategy="vanilla")
    bench.cell(strategy="splitwiper")
    figure = accuracy_by_epoch(read(bench))
    assert len(figure.panels) == 2
    assert [key.name.text for key in figure.legend] == ["vanilla"]
    assert ("vanilla", "learning", "retained", 2.0, pytest.approx(0.45)) in rows(figure)
    assert len(rows(figure)) == 4
    assert_speaks(figure)


def test_without_epochs_there_is_no_such_figure(bench):
    bench.cell()
    assert accuracy_by_epoch(read(bench)) is None


def test_cost_by_server_epochs_is_drawn_where_they_vary(bench):
    for epochs in (5, 10, 20):
        clients = [client(0, True, seconds=epochs, up=1000 * epochs), client(1)]
        bench.cell(phase(clients=clients), strategy="vanilla", server_epochs=epochs)
        bench.cell(phase(), strategy="splitwiper", server_epochs=epochs)
    (figure,) = by_settings(read(bench))
    assert figure.slug == "by-server-epochs"
    assert [key.name.text for key in figure.legend] == ["splitwiper", "vanilla"] or [
        key.name.text for key in figure.legend
    ] == ["vanilla", "splitwiper"]
    named = ("learning", "requesting client's computing", "seconds")
    assert ("vanilla", "20", *named, 20.0) in rows(figure)
    assert len(figure.panels[0].picture.curves) == 2
    assert_speaks(figure)


def test_cost_by_expansion_has_the_others_as_dashed_lines(bench):
    for expansion, sent in (("2", 2000), ("3", 3000), ("1-3", 2100)):
        clients = [client(0, True, up=sent), client(1)]
        bench.cell(phase(clients=clients), strategy="splitwiper-plus", expansion=expansion)
    bench.cell(strategy="vanilla")
    (figure,) = by_settings(read(bench))
    picture = figure.panels[0].picture
    said = "splitwiper-plus: from 2 kB at expansion 2 to 2.1 kB at expansion 1-3"
    assert said in picture.words
    assert [curve.dashed for curve in picture.curves].count(True) == 1
    assert [key.dashed for key in figure.legend] in ([False, True], [True, False])


def test_accuracy_by_epsilon_and_nothing_where_a_setting_does_not_vary(bench):
    for epsilon in ("0.1", "0.2"):
        bench.cell(strategy="splitwiper-plus", epsilon=epsilon, expansion="3")
    (figure,) = by_settings(read(bench))
    assert figure.slug == "by-epsilon"
    assert {row[2] for row in rows(figure)} == {"forgotten accuracy", "retained accuracy"}


def test_clustering_accuracy_has_every_attack_once(bench):
    attacks = [
        {"name": name, "clusters": 3, "inclusive": 1.0, "perfect": share}
        for name, share in (("kmeans elbow", 0.25), ("linkage", 0.5))
    ]
    bench.cell(phase(label_matching=matching(attacks)), strategy="splitwiper-plus")
    bench.cell(strategy="vanilla")
    figure = clustering_accuracy(read(bench))
    assert rows(figure) == [
        ("splitwiper-plus", "learning", "kmeans elbow", 0.25, 1.0),
        ("splitwiper-plus", "learning", "linkage", 0.5, 1.0),
    ]
    assert figure.legend == ()
    assert_speaks(figure)
    perfect, inclusive = (drawn(panel.picture) for panel in figure.panels)
    assert texts(perfect) == ["kmeans elbow", "linkage", "splitwiper-plus", "25", "50"]
    assert texts(inclusive)[-2:] == ["100", "100"]


def test_of_many_attacks_none_is_left_out(bench):
    names = [f"attack {number}" for number in range(20)]
    attacks = [{"name": name, "clusters": 3, "inclusive": 1.0, "perfect": 0.5} for name in names]
    settings = [str(number) for number in range(40)]
    for epsilon in settings:
        bench.cell(
            phase(label_matching=matching(attacks)), strategy="splitwiper-plus", epsilon=epsilon
        )
    bench.cell(phase(), strategy="splitwiper-plus", epsilon="none run")
    for panel in clustering_accuracy(read(bench)).panels:
        picture = drawn(panel.picture)
        cells = [one.find("title").text for one in picture.iter("path") if len(one)]
        assert len(set(cells)) == 20 * 40
        # A line of its own for each setting.
        assert sum(one.startswith("epsilon") for one in texts(picture)) == 40


def sent(size):
    return [client(0, True, up=size, down=0), client(1)]


def front(figure):
    return next(one for one in figure.panels[0].picture.curves if one.name == "front")


def test_forgetting_against_cost_has_what_was_retrained_at_nothing(bench):
    bench.cell(phase(), phase(1, forgotten=0.25, clients=sent(5000)), unlearning="retrain")
    bench.cell(phase(), phase(1, forgotten=0.75, clients=sent(100)), unlearning="fine-tune")
    bench.cell(phase(), phase(1, forgotten=1.0, clients=sent(0)), unlearning="none")
    figure = forgetting_against_cost(read(bench))
    kind = "forgotten accuracy, share"
    assert rows(figure) == [
        ("retrain", "forgetting class:bird", kind, 0.0, 5000.0),
        ("fine-tune", "forgetting class:bird", kind, 0.5, 100.0),
        ("none", "forgetting class:bird", kind, 0.75, 0.0),
    ]
    # Nothing beats any of the three in both.
    assert len(front(figure).points) == 3
    assert_speaks(figure)


def test_the_front_leaves_out_what_another_beats(bench):
    for unlearning, far, cost in (
        ("retrain", None, 1000),
        ("fine-tune", 0.2, 100),
        ("distillation", 0.3, 200),
        ("gradient-ascent", 0.1, 2000),
    ):
        told = metrics(divergence={"forgotten": far}) if far else None
        bench.cell(phase(), phase(1, clients=sent(cost)), unlearning=unlearning, metrics=told)
    figure = forgetting_against_cost(read(bench))
    assert {row[2] for row in rows(figure)} == {"divergence on the forgotten, bits"}
    assert len(front(figure).points) == 2


def test_one_point_is_no_comparison(bench):
    bench.cell(unlearning="retrain")
    assert forgetting_against_cost(read(bench)) is None


def test_the_roc_of_several_seeds_is_their_mean_at_each_rate(bench):
    for seed, true in enumerate(([0.0, 0.4, 1.0], [0.2, 0.6, 1.0])):
        curve = membership() | {
            "roc": {
                "false_positive_rate": [0.0, 0.5 + 0.25 * seed, 1.0],
                "true_positive_rate": true,
            }
        }
        bench.cell(metrics=metrics(membership=curve), seed=seed)
    figure = membership_roc(read(bench))
    points = [(row[-2], row[-1]) for row in rows(figure)]
    assert points == [
        (0.0, pytest.approx(0.1)),
        (0.5, pytest.approx(0.3)),
        (0.75, pytest.approx(0.5)),
        (1.0, 1.0),
    ]
    assert_speaks(figure)


def test_many_rocs_are_folded_and_none_is_left_out(bench):
    for momentum in range(9):
        bench.cell(metrics=metrics(membership=membership()), momentum=momentum / 10)
    figure = membership_roc(read(bench))
    folded = dict(figure.folded)
    assert len(figure.panels) == 6
    assert len(folded["The other 3"]) == 3
    assert len(folded["Few false positives (logarithmic axis)"]) == 9


def test_without_rates_there_is_no_roc(bench):
    bench.cell(metrics=metrics(membership=membership(roc=False)))
    assert membership_roc(read(bench)) is None


def test_who_holds_what_is_drawn_once_for_each_way_of_dealing(bench):
    dealt = [{"labels": ["a", "b"], "train": [[3, 0], [seed, 4]]} for seed in range(2)]
    for strategy in ("vanilla", "splitwiper"):
        for seed in range(2):
            bench.cell(strategy=strategy, seed=seed, distribution=dealt[seed])
    figure = label_distribution(read(bench).benchmark.cells)
    assert len(figure.panels) == 1
    assert ("digits", "iid", "1", "1", "a", 1.0) in rows(figure)
    assert len(rows(figure)) == 8
    assert "client 0 holds 3 of a." in figure.panels[0].picture.words
    assert_speaks(figure)


def test_many_labels_are_drawn_without_their_names(bench):
    labels = [f"label {number}" for number in range(100)]
    bench.cell(distribution={"labels": labels, "train": [[1] * 100, [0] * 100]})
    figure = label_distribution(read(bench).benchmark.cells)
    picture = drawn(figure.panels[0].picture)
    assert sum(len(one) > 0 for one in picture.iter("path")) == 200
    assert texts(picture) == ["client 0", "client 1"]
