"""The tables of measures, against what the made-up cells say."""

import pytest

from split_unlearning.reporting.benchmark import read_benchmark
from split_unlearning.reporting.results import read_results
from split_unlearning.reporting.tables.accuracy import accuracy_table
from split_unlearning.reporting.tables.cost import cost_tables
from split_unlearning.reporting.tables.distance import distance_tables
from split_unlearning.reporting.tables.failures import failures_table
from split_unlearning.reporting.tables.label_matching import label_matching_tables
from split_unlearning.reporting.tables.membership import membership_tables
from tests.reporting.synthetic import Bench, client, membership, metrics, phase


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def read(bench):
    return read_results(read_benchmark(bench.folder))


def values(table, row=0):
    """Return a row by the slugs of its columns: texts, means, or None."""
    found = list(table.rows())[row]
    return {slug: getattr(one, "mean", getattr(one, "text", None)) for slug, one in found.items()}


def column(table, slug):
    return next(one for one in table.columns if one.slug == slug)


def test_accuracy_after_learning_and_after_each_request(bench):
    requests = {"forget": "class:bird;class:cat"}
    for seed, retained in ((0, 0.8), (1, 0.6)):
        bench.cell(
            phase(retained=retained),
            phase(1, "class:bird", forgotten=0.0),
            phase(2, "class:cat", forgotten=0.125, retained=None),
            seed=seed,
            strategy="my.package:Mine",
            **requests,
        )
    table = accuracy_table(read(bench))
    assert values(table) == {
        "strategy": "Mine",
        "seeds": 2,
        "learn_forgotten": 1.0,
        "learn_retained": pytest.approx(0.7),
        "request-1_forgotten": 0.0,
        "request-1_retained": 0.9,
        "request-2_forgotten": 0.125,
    }
    assert column(table, "request-1_forgotten").group == "after forgetting class:bird"
    assert column(table, "learn_forgotten").better == "higher"
    assert column(table, "request-1_forgotten").better == "lower"


def test_where_clients_hold_several_data_sets_each_has_its_accuracy(bench):
    own = "npz:/a/folder/signs.npz"
    for seed, share in ((0, 0.5), (1, 0.25)):
        joined = {"cifar10": share, own: 0.75}
        after = {"cifar10": None, own: 1.0}
        bench.cell(phase(per_task=joined), phase(1, per_task=after), seed=seed, dataset="both")
    bench.cell(phase(per_task={"mnist": 0.5, own: 1.0}), phase(1), dataset="others")
    bench.cell(phase(), phase(1), dataset="digits")
    table = accuracy_table(read(bench))
    both, others, alone = (values(table, row) for row in range(3))
    assert (both["learn_cifar10"], both[f"learn_{own}"]) == (0.375, 0.75)
    assert both["learn_mnist"] is None
    assert both[f"request-1_{own}"] == 1.0
    assert "request-1_cifar10" not in both
    assert (others["learn_mnist"], others[f"learn_{own}"]) == (0.5, 1.0)
    assert {alone[slug] for slug in alone if "cifar10" in slug or own in slug} == {None}
    learned, forgot = (column(table, f"{when}_{own}") for when in ("learn", "request-1"))
    assert (learned.name, learned.group) == ("npz:signs.npz", "after learning")
    assert (learned.better, forgot.better) == ("higher", "")
    assert any("several data sets" in note for note in table.notes)
    # Where there is one data set, nothing is said of it.
    assert not any("digits" in one.slug for one in table.columns)


def test_of_a_single_data_set_nothing_is_said(bench):
    bench.cell(phase(), phase(1))
    table = accuracy_table(read(bench))
    assert [one.name for one in table.columns][2:] == ["forgotten", "retained"] * 2
    assert len(table.notes) == 1


def test_for_a_share_of_a_label_neither_more_nor_less_is_better(bench):
    bench.cell(phase(), phase(1, "samples:0.5@class:bird"), strategy="vanilla")
    table = accuracy_table(read(bench))
    assert column(table, "request-1_forgotten").better == ""
    assert any("retrained" in note for note in table.notes)


def test_requests_that_differ_are_not_named(bench):
    bench.cell(phase(), phase(1, "class:bird"), forget="class:bird")
    bench.cell(phase(), phase(1, "class:cat"), forget="class:cat")
    table = accuracy_table(read(bench))
    assert column(table, "request-1_forgotten").group == "after forgetting"


def test_cost_is_the_mean_of_a_client_apart_for_who_asks(bench):
    clients = [
        client(0, True, seconds=4.0, up=1000, down=10),
        client(1, seconds=1.0, up=300),
        client(2, seconds=2.0, up=100),
    ]
    bench.cell(phase(clients=clients), phase(1), strategy="vanilla")
    learn, forget = cost_tables(read(bench))
    found = values(learn)
    assert found["computing_requesting"] == 4.0
    assert found["computing_other"] == 1.5
    assert found["upload_requesting"] == 1000
    assert found["upload_other"] == 200
    assert found["download_requesting"] == 10
    assert found["upload_on_the_wire_requesting"] == pytest.approx(1000 * 8 / 100e6)
    assert found["server_seconds"] == 2.0
    assert (learn.slug, forget.slug) == ("cost-learn", "cost-request-1")
    assert "100 Mbps" in " ".join(learn.notes)


def test_costs_name_every_bandwidth_that_was_used(bench):
    bench.cell(bandwidth_mbps=10.0)
    bench.cell(bandwidth_mbps=50.0)
    assert "at 10 or 50 Mbps" in " ".join(cost_tables(read(bench))[0].notes)


def test_membership_stands_beside_before_and_the_retrained_model(bench):
    told = metrics(
        membership=membership(0.4, 0.5),
        membership_before=membership(0.9, 0.8),
        membership_reference=membership(0.6, 0.7),
        membership_pair=None,
    )
    bench.cell(metrics=told, strategy="vanilla")
    bench.cell(strategy="splitwiper")
    (table,) = membership_tables(read(bench))
    # What was not attacked has no row.
    assert len(table.frame) == 1
    found = values(table)
    assert (found["hit_rate_before"], found["hit_rate_after"]) == (0.9, 0.4)
    assert found["hit_rate_reference"] == 0.6
    assert found["hit_rate_gap"] == pytest.approx(-0.2)
    assert found["auc_gap"] == pytest.approx(-0.2)
    assert found["tpr_at_low_fpr_after"] == 0.02
    assert found["members"] == 40
    assert "pair_auc" not in found
    assert column(table, "hit_rate_gap").better == "zero"
    assert column(table, "hit_rate_after").better == ""
    assert "over-forgetting" in " ".join(table.notes)


def test_without_a_request_membership_is_that_of_learning(bench):
    bench.cell(phase(), metrics=metrics(task=0, membership=membership(0.9)))
    (table,) = membership_tables(read(bench))
    assert table.slug == "membership-learn"
    assert values(table)["hit_rate_after"] == 0.9


def test_the_gap_is_taken_seed_by_seed(bench):
    for seed, (after, reference) in enumerate([(0.5, 0.4), (0.9, 0.6)]):
        told = metrics(membership=membership(after), membership_reference=membership(reference))
        bench.cell(metrics=told, seed=seed)
    (table,) = membership_tables(read(bench))
    (row,) = table.rows()
    gap = row["hit_rate_gap"]
    assert gap.mean == pytest.approx(0.2)
    assert gap.deviation == pytest.approx(2**0.5 / 10)


def test_distance_is_to_the_cell_that_was_retrained(bench):
    bench.cell(phase(), phase(1, forgotten=0.1, retained=0.8), unlearning="retrain")
    told = metrics(
        divergence={"forgotten": 0.25, "retained": 0.01, "test": 0.02},
        relearn={"epochs": 2, "reference_epochs": 5},
        backdoor={"success": 0.1, "success_before": 0.9, "reference_success": 0.05},
    )
    bench.cell(phase(), phase(1, forgotten=0.5, retained=0.7), unlearning="fine-tune", metrics=told)
    (table,) = distance_tables(read(bench))
    assert len(table.frame) == 1
    row = values(table)
    assert row["unlearning"] == "fine-tune"
    assert row["accuracy_forgotten_gap"] == pytest.approx(0.4)
    assert row["accuracy_retained_gap"] == pytest.approx(-0.1)
    assert row["divergence_forgotten_bits"] == 0.25
    assert (row["relearn_epochs"], row["relearn_reference_epochs"]) == (2, 5)
    assert (row["backdoor_success_before"], row["backdoor_success"]) == (0.9, 0.1)
    assert column(table, "divergence_test_bits").better == "lower"


def test_without_anything_retrained_there_is_no_distance(bench):
    bench.cell(strategy="vanilla", unlearning="fine-tune")
    assert distance_tables(read(bench)) == []


def test_label_matching_has_the_papers_attacks_and_the_strongest(bench):
    attacks = [
        {"name": "kmeans elbow", "clusters": 3, "inclusive": 0.9, "perfect": 0.25},
        {"name": "linkage", "clusters": 3, "inclusive": 0.5, "perfect": 0.75},
        {"name": "client sets", "clusters": 3, "inclusive": 0.75, "perfect": 0.75},
    ]
    matching = {"attacks": attacks, "strongest": "linkage", "vanished_are_one_label": True}
    bench.cell(phase(label_matching=matching), phase(1, label_matching=None))
    (table,) = label_matching_tables(read(bench))
    found = values(table)
    assert found["strongest_perfect"] == 0.75
    assert found["strongest_inclusive"] == 0.75
    assert found["kmeans_elbow_perfect"] == 0.25
    assert found["vanished_are_one_label"] == 1.0
    assert "birch_elbow_perfect" not in found


def test_a_cell_without_a_finished_reference_is_listed(tmp_path):
    bench = Bench(tmp_path)
    for unlearning in ("fine-tune", "retrain"):
        bench.cell(strategy="vanilla", unlearning=unlearning, forget="class:cat")
    bench.cell(strategy="u-shaped", unlearning="fine-tune")
    table = failures_table(read_benchmark(tmp_path))
    assert values(table)["unlearning"] == "fine-tune"
    assert values(table)["strategy"] == "u-shaped"
    assert "no finished cell retrains with the same settings" in values(table)["error"]
    assert len(table.frame) == 1


def test_failures_have_what_sets_them_apart_and_what_happened(tmp_path):
    bench = Bench(tmp_path, cells=["cell-000", "cell-001", "cell-009"])
    bench.cell(strategy="vanilla", model="cnn")
    bench.describe(
        {"strategy": "vanilla", "model": "vgg"}, 1, status="failed", error="out of memory"
    )
    table = failures_table(read_benchmark(tmp_path))
    slugs = [one.slug for one in table.columns]
    assert slugs == ["cell", "strategy", "model", "seed", "role", "error"]
    assert values(table)["model"] == "vgg"
    assert values(table)["error"] == "out of memory"
    assert values(table, 1) == {
        "cell": "cell-009",
        "strategy": None,
        "model": None,
        "seed": None,
        "role": None,
        "error": "planned, and has not ended",
    }
