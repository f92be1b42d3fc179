"""Figures: what is drawn is what was measured, and it is said in words and in a table, too."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from split_unlearning.reporting.benchmark import read_benchmark
from split_unlearning.reporting.figures.by_epoch import accuracy_by_epoch
from split_unlearning.reporting.figures.by_setting import by_settings
from split_unlearning.reporting.figures.chart import STYLES, Curve, Point, chart, swatch
from split_unlearning.reporting.figures.clustering import clustering_accuracy
from split_unlearning.reporting.figures.forgetting_cost import forgetting_against_cost
from split_unlearning.reporting.figures.label_distribution import label_distribution
from split_unlearning.reporting.figures.roc import membership_roc
from split_unlearning.reporting.figures.scale import categories, linear, logarithmic
from split_unlearning.reporting.groups import make_groups
from split_unlearning.reporting.statistic import Summary
from tests.reporting.synthetic import Bench, client, membership, metrics, phase


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def read(bench):
    found = read_benchmark(bench.folder)
    return found, make_groups(found.cells, found.axes)


def rows(figure):
    return [
        tuple(
            value.mean if isinstance(value, Summary) else getattr(value, "text", None)
            for value in row
        )
        for row in figure.data.rows
    ]


def drawn(figure):
    """Return the charts as XML: it has to be well-formed."""
    panels = [*figure.panels, *(panel for _, more in figure.folded for panel in more)]
    return [ElementTree.fromstring(panel.chart) for panel in panels]


def assert_speaks(figure):
    assert figure.caption
    assert figure.data.rows
    for picture in drawn(figure):
        assert picture.get("role") == "img"
        said = picture.find("title").text
        assert said == picture.get("aria-label")
        assert len(said) > 20


axes = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=8)


@settings(deadline=None)
@example([5e-324])
@example([0.0, 5e-324])
@given(axes)
def test_all_values_and_ticks_lie_on_a_linear_axis(values):
    scale = linear("x", values, str)
    places = [scale.place(value) for value in values]
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
    ticks = [place for place, _ in scale.ticks]
    assert 2 <= len(ticks) <= 12
    assert all(one < other for one, other in pairwise(ticks))
    assert all(-1e-6 <= scale.place(tick) <= 1 + 1e-6 for tick in ticks)


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e12), min_size=1, max_size=8))
def test_a_logarithmic_axis_keeps_order_and_puts_nothing_at_its_low_end(values):
    scale = logarithmic("x", [0.0, *values], str, zero=True)
    assert scale.place(0.0) == 0
    assert all(0 < scale.place(value) <= 1 + 1e-9 for value in values)
    ordered = sorted(values)
    places = [scale.place(value) for value in ordered]
    assert places == sorted(places)
    assert scale.ticks[0][1] == "0"


def test_every_name_has_a_place_of_its_own():
    scale = categories("x", ["a", "b", "c"])
    assert [scale.place(place) for place, _ in scale.ticks] == pytest.approx([1 / 6, 0.5, 5 / 6])


def test_a_point_stands_where_its_value_is():
    x, y = linear("x", [0, 10], str), linear("y", [0, 1], str)
    curve = Curve("c", (Point(0, 0, "low"), Point(10, 1, "high")), 0)
    picture = ElementTree.fromstring(chart([curve], x, y, "from low to high, in words"))
    circles = [(float(one.get("cx")), float(one.get("cy"))) for one in picture.iter("circle")]
    line = picture.find(".//polyline").get("points")
    assert [tuple(map(float, place.split(","))) for place in line.split()] == circles
    (left, low), (right, high) = circles
    assert left < right
    assert low > high
    # It is on the lines of the grid at 0 and at 1.
    grid = [float(one.get("y1")) for one in picture.iter("line") if one.get("class") == "grid"]
    assert (max(grid), min(grid)) == (low, high)


def test_no_two_of_many_styles_look_alike():
    pictures = {swatch(style) for style in range(STYLES * STYLES)}
    assert len(pictures) == STYLES * STYLES


def test_accuracy_by_epoch_is_the_mean_over_seeds(bench):
    for seed in range(2):
        epochs = [
            {"epoch": epoch, "unlearned": 0.1 * epoch, "retained": 0.2 * epoch + 0.1 * seed}
            for epoch in (1, 2)
        ]
        bench.cell(phase(by_epoch=epochs), phase(1, by_epoch=None), seed=seed, strategy="vanilla")
    bench.cell(strategy="splitwiper")
    figure = accuracy_by_epoch(read(bench)[1])
    assert len(figure.panels) == 2
    assert [key.name.text for key in figure.legend] == ["vanilla"]
    assert ("vanilla", "learning", "retained", 2.0, pytest.approx(0.45)) in rows(figure)
    assert len(rows(figure)) == 4
    assert_speaks(figure)


def test_without_epochs_there_is_no_such_figure(bench):
    bench.cell()
    assert accuracy_by_epoch(read(bench)[1]) is None


def test_cost_by_server_epochs_is_drawn_where_they_vary(bench):
    for epochs in (5, 10, 20):
        clients = [client(0, True, seconds=epochs, up=1000 * epochs), client(1)]
        bench.cell(phase(clients=clients), strategy="vanilla", server_epochs=epochs)
        bench.cell(phase(), strategy="splitwiper", server_epochs=epochs)
    (figure,) = by_settings(read(bench)[1])
    assert figure.slug == "by-server-epochs"
    assert [key.name.text for key in figure.legend] == ["splitwiper", "vanilla"] or [
        key.name.text for key in figure.legend
    ] == ["vanilla", "splitwiper"]
    named = ("learning", "requesting client's computing", "seconds")
    assert ("vanilla", "20", *named, 20.0) in rows(figure)
    assert len(drawn(figure)[0].findall(".//polyline")) == 2
    assert_speaks(figure)


def test_cost_by_expansion_has_the_others_as_dashed_lines(bench):
    for expansion, sent in (("2", 2000), ("3", 3000), ("1-3", 2100)):
        clients = [client(0, True, up=sent), client(1)]
        bench.cell(phase(clients=clients), strategy="splitwiper-plus", expansion=expansion)
    bench.cell(strategy="vanilla")
    (figure,) = by_settings(read(bench)[1])
    picture = drawn(figure)[0]
    said = picture.find("title").text
    assert re.search(r"splitwiper-plus: from 2 kB at expansion 2 to 2.1 kB at expansion 1-3", said)
    dashed = [one for one in picture.iter("polyline") if "dashed" in one.get("class")]
    assert len(dashed) == 1
    assert [key.dashed for key in figure.legend] in ([False, True], [True, False])


def test_accuracy_by_epsilon_and_nothing_where_a_setting_does_not_vary(bench):
    for epsilon in ("0.1", "0.2"):
        bench.cell(strategy="splitwiper-plus", epsilon=epsilon, expansion="3")
    (figure,) = by_settings(read(bench)[1])
    assert figure.slug == "by-epsilon"
    assert {row[2] for row in rows(figure)} == {"forgotten accuracy", "retained accuracy"}


def test_clustering_accuracy_has_every_attack_once(bench):
    attacks = [
        {"name": name, "clusters": 3, "inclusive": 1.0, "perfect": share}
        for name, share in (("kmeans elbow", 0.25), ("linkage", 0.5))
    ]
    bench.cell(phase(label_matching={"attacks": attacks}), strategy="splitwiper-plus")
    bench.cell(strategy="vanilla")
    figure = clustering_accuracy(read(bench)[1])
    assert rows(figure) == [
        ("splitwiper-plus", "learning", "kmeans elbow", 0.25, 1.0),
        ("splitwiper-plus", "learning", "linkage", 0.5, 1.0),
    ]
    assert figure.legend == ()
    assert_speaks(figure)
    perfect, inclusive = drawn(figure)
    assert [one.text for one in perfect.iter("text")] == [
        *("kmeans elbow", "linkage"),
        *("splitwiper-plus", "25", "50"),
    ]
    assert [one.text for one in inclusive.iter("text")][-2:] == ["100", "100"]


def test_of_many_attacks_none_is_left_out(bench):
    names = [f"attack {number}" for number in range(20)]
    attacks = [{"name": name, "clusters": 3, "inclusive": 1.0, "perfect": 0.5} for name in names]
    settings = [str(number) for number in range(40)]
    for epsilon in settings:
        bench.cell(
            phase(label_matching={"attacks": attacks}), strategy="splitwiper-plus", epsilon=epsilon
        )
    bench.cell(phase(), strategy="splitwiper-plus", epsilon="none run")
    for picture in drawn(clustering_accuracy(read(bench)[1])):
        assert len(list(picture.iter("rect"))) == 20 * 40
        # A line of its own for each setting.
        assert len({one.get("y") for one in picture.iter("rect")}) == 40


def sent(size):
    return [client(0, True, up=size, down=0), client(1)]


def test_forgetting_against_cost_has_what_was_retrained_at_nothing(bench):
    bench.cell(phase(), phase(1, forgotten=0.25, clients=sent(5000)), unlearning="retrain")
    bench.cell(phase(), phase(1, forgotten=0.75, clients=sent(100)), unlearning="fine-tune")
    bench.cell(phase(), phase(1, forgotten=1.0, clients=sent(0)), unlearning="none")
    found, groups = read(bench)
    figure = forgetting_against_cost(found, groups)
    kind = "forgotten accuracy, share"
    assert rows(figure) == [
        ("retrain", "forgetting class:bird", kind, 0.0, 5000.0),
        ("fine-tune", "forgetting class:bird", kind, 0.5, 100.0),
        ("none", "forgetting class:bird", kind, 0.75, 0.0),
    ]
    # Nothing beats any of the three in both.
    front = drawn(figure)[0].find(".//polyline")
    assert len(front.get("points").split()) == 3
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
    found, groups = read(bench)
    figure = forgetting_against_cost(found, groups)
    assert {row[2] for row in rows(figure)} == {"divergence on the forgotten, bits"}
    assert len(drawn(figure)[0].find(".//polyline").get("points").split()) == 2


def test_one_point_is_no_comparison(bench):
    bench.cell(unlearning="retrain")
    found, groups = read(bench)
    assert forgetting_against_cost(found, groups) is None


def test_the_roc_of_several_seeds_is_their_mean_at_each_rate(bench):
    for seed, true in enumerate(([0.0, 0.4, 1.0], [0.2, 0.6, 1.0])):
        curve = membership() | {
            "roc": {
                "false_positive_rate": [0.0, 0.5 + 0.25 * seed, 1.0],
                "true_positive_rate": true,
            }
        }
        bench.cell(metrics=metrics(membership=curve), seed=seed)
    figure = membership_roc(read(bench)[1])
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
    figure = membership_roc(read(bench)[1])
    folded = dict(figure.folded)
    assert len(figure.panels) == 6
    assert len(folded["The other 3"]) == 3
    assert len(folded["Few false positives (logarithmic axis)"]) == 9


def test_without_rates_there_is_no_roc(bench):
    bench.cell(metrics=metrics(membership=membership(roc=False)))
    assert membership_roc(read(bench)[1]) is None


def test_who_holds_what_is_drawn_once_for_each_way_of_dealing(bench):
    dealt = [{"labels": ["a", "b"], "train": [[3, 0], [seed, 4]]} for seed in range(2)]
    for strategy in ("vanilla", "splitwiper"):
        for seed in range(2):
            bench.cell(strategy=strategy, seed=seed, distribution=dealt[seed])
    figure = label_distribution(read(bench)[0].cells)
    assert len(figure.panels) == 1
    assert ("digits", "iid", "1", "1", "a", 1.0) in rows(figure)
    assert len(rows(figure)) == 8
    said = drawn(figure)[0].find("title").text
    assert "client 0 holds 3 of a." in said
    assert_speaks(figure)


def test_many_labels_are_drawn_without_their_names(bench):
    labels = [f"label {number}" for number in range(100)]
    bench.cell(distribution={"labels": labels, "train": [[1] * 100, [0] * 100]})
    figure = label_distribution(read(bench)[0].cells)
    (picture,) = drawn(figure)
    assert len(picture.findall("rect")) == 200
    assert [text.text for text in picture.findall("text")] == ["client 0", "client 1"]
