"""What a run will do, worked out from its config before anything starts."""

import numpy as np
import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.preparation import Forgetting, prepare
from split_unlearning.unlearning.request import Request


def config(**settings):
    return RunConfig.from_mapping(
        {name.replace("_", "-"): value for name, value in settings.items()}
    )


def refusal(num_clients, **settings):
    """Return the one line with which a run is refused."""
    with pytest.raises(UserError) as refused:
        prepare(config(**settings), num_clients)
    message = str(refused.value)
    assert "\n" not in message
    return message


def ids_file(tmp_path, ids, name="ids.txt"):
    path = tmp_path / name
    path.write_text("\n".join(map(str, ids)))
    return f"ids:{path}"


def chosen(forgetting):
    return {client: ids.tolist() for client, ids in forgetting.samples.items()}


def of_label(prepared, label):
    return np.flatnonzero(prepared.dataset.y_train == label).tolist()


def test_a_class_means_all_its_samples_on_the_requesting_client():
    prepared = prepare(config(forget="class:2", forget_client=1), 3)
    (forgetting,) = prepared.forgettings
    assert forgetting.request.text == "class:2"
    assert forgetting.clients == [1]
    assert forgetting.label == 2
    assert chosen(forgetting) == {1: of_label(prepared, 2)}


def test_a_class_means_the_requesting_clients_part_where_others_hold_it_too():
    prepared = prepare(config(forget="class:2", distribution="iid", forget_client=1), 3)
    (forgetting,) = prepared.forgettings
    expected = sorted({*of_label(prepared, 2)} & {*prepared.plan.train[1].tolist()})
    assert chosen(forgetting) == {1: expected}
    assert 0 < len(expected) < len(of_label(prepared, 2))


def test_a_class_means_what_everybody_holds_of_it_where_everybody_asks():
    for distribution in ("iid", "partial-overlap", "heterogeneous-labels"):
        prepared = prepare(
            config(forget="class:2", distribution=distribution, forget_client="all"), 5
        )
        (forgetting,) = prepared.forgettings
        meant = np.concatenate([*forgetting.samples.values()])
        assert sorted(meant.tolist()) == of_label(prepared, 2)
        held = {
            client: sorted({*ids.tolist()} & {*of_label(prepared, 2)})
            for client, ids in enumerate(prepared.plan.train)
        }
        assert chosen(forgetting) == {client: ids for client, ids in held.items() if ids}


def test_of_a_label_that_several_ask_for_each_forgets_its_share():
    share = {"forget": "samples:0.5@class:2", "distribution": "iid"}
    (forgetting,) = prepare(config(**share, forget_client="2,0"), 4).forgettings
    assert forgetting.clients == [0, 2]
    for client in (0, 2):
        one = config(**share, forget_client=client)
        assert prepare(one, 4).forgettings[0].samples[client].tolist() == (
            forgetting.samples[client].tolist()
        )


def test_a_client_means_all_it_holds():
    prepared = prepare(config(forget="client:2"), 3)
    (forgetting,) = prepared.forgettings
    assert chosen(forgetting) == {2: prepared.plan.train[2].tolist()}
    assert forgetting.label is None


def test_a_share_means_that_part_of_the_class():
    prepared = prepare(config(forget="samples:0.25@class:2"), 3)
    (forgetting,) = prepared.forgettings
    of_class = of_label(prepared, 2)
    assert forgetting.clients == [0]
    assert forgetting.label == 2
    assert {*forgetting.samples[0].tolist()} < {*of_class}
    assert abs(len(forgetting.samples[0]) - len(of_class) / 4) <= 0.5


def test_ids_mean_samples_wherever_they_lie(tmp_path):
    ids = [3, 700, 41, 1000]
    prepared = prepare(config(forget=ids_file(tmp_path, ids)), 4)
    (forgetting,) = prepared.forgettings
    expected = {
        client: [sample for sample in held.tolist() if sample in ids]
        for client, held in enumerate(prepared.plan.train)
    }
    assert chosen(forgetting) == {client: found for client, found in expected.items() if found}
    assert forgetting.clients == sorted(forgetting.samples)
    assert sum(map(len, forgetting.samples.values())) == len(ids)
    assert forgetting.label is None
    # The request that travels to clients holds the ids, not the name of a file they may not have.
    assert (forgetting.request.ids, forgetting.request.ids_file) == (tuple(sorted(ids)), "")


def test_nothing_to_forget_is_a_run_that_only_learns():
    assert prepare(config(forget=""), 2).forgettings == ()


def test_requests_in_sequence_leave_out_what_was_forgotten(tmp_path):
    text = f"samples:0.5@class:2;{ids_file(tmp_path, [0, 1])};class:2;client:0"
    prepared = prepare(config(forget=text), 3)
    half, ids, rest, client = prepared.forgettings
    class_2 = {*of_label(prepared, 2)}
    assert {*half.samples[0].tolist()} < class_2
    assert {*rest.samples[0].tolist()} == class_2 - {*half.samples[0].tolist()}
    named = {sample for found in chosen(ids).values() for sample in found}
    assert named == {0, 1}
    held = {*prepared.plan.train[0].tolist()}
    assert {*client.samples[0].tolist()} == held - class_2 - named
    # The plan itself says who held what before anything was forgotten.
    assert class_2 <= held


def test_a_second_share_is_drawn_from_what_the_first_left():
    prepared = prepare(config(forget="samples:0.5@class:2;samples:0.5@class:2"), 3)
    first, second = (one.samples[0] for one in prepared.forgettings)
    assert not {*first.tolist()} & {*second.tolist()}
    left = len(of_label(prepared, 2)) - len(first)
    assert abs(len(second) - left / 2) <= 0.5


def test_the_same_config_is_the_same_plan():
    first, second = (prepare(config(forget="samples:0.3@class:2", seed=4), 3) for _ in range(2))
    assert [chosen(one) for one in first.forgettings] == [chosen(one) for one in second.forgettings]
    other = prepare(config(forget="samples:0.3@class:2", seed=5), 3)
    assert chosen(other.forgettings[0]) != chosen(first.forgettings[0])


@pytest.mark.parametrize(
    ("num_clients", "settings", "parts"),
    [
        (3, {"forget": "client:3"}, ["forget='client:3'", "0 to 2"]),
        (3, {"forget": "client:9"}, ["forget='client:9'", "0 to 2"]),
        (3, {"forget_client": 3}, ["forget-client=3", "0 to 2"]),
        (3, {"forget_client": "0,3", "distribution": "iid"}, ["forget-client='0,3'", "0 to 2"]),
        (
            5,
            {"forget_client": "0,1,2,3,4"},
            ["forget='class:2'", "holds, which forget-client names"],
        ),
        (3, {"forget": "", "forget_client": 7}, ["forget-client=7", "0 to 2"]),
        (3, {"forget": "class:10"}, ["forget='class:10'", "10 labels"]),
        (3, {"forget": "class:bird"}, ["forget='class:bird'", "0, 1, 2"]),
        (3, {"forget": "samples:0.5@class:10"}, ["forget='samples:0.5@class:10'"]),
        (1, {"forget": "client:0"}, ["forget='client:0'", "something to learn from"]),
        (2, {"forget": "client:0;client:1"}, ["forget='client:0;client:1'", "something"]),
        (3, {"dataset": "digit"}, ["dataset='digit'", "digits"]),
        (3, {"model": "vgg"}, ["model='vgg'", "(1, 8, 8)"]),
        (0, {}, ["num-supernodes=0"]),
        (2000, {}, ["num-supernodes=2000"]),
        (3, {"forget": "bird"}, ["forget='bird'"]),
        (3, {"strategy": "nothing"}, ["strategy='nothing'"]),
    ],
)
def test_the_impossible_is_refused(num_clients, settings, parts):
    message = refusal(num_clients, **settings)
    assert all(part in message for part in parts)


@pytest.mark.parametrize(
    ("forget", "what"),
    [
        ("class:2;class:2", "forget='class:2'"),
        ("class:2;samples:0.5@class:2", "forget='samples:0.5@class:2'"),
        ("client:0;class:2", "forget='class:2'"),
        ("client:0;client:0", "forget='client:0'"),
    ],
)
def test_what_an_earlier_request_took_cannot_be_forgotten_again(forget, what):
    message = refusal(3, forget=forget)
    assert message.startswith(f"{what} names nothing that client 0 holds; it holds: ")
    if forget.startswith("client:0"):
        assert message.endswith("nothing any more")
    else:
        # The names of the labels that this client still holds.
        held = prepare(config(forget="class:2"), 3)
        ids = held.plan.train[0]
        labels = sorted({*held.dataset.y_train[ids].tolist()} - {2})
        assert message.endswith(f"it holds: {', '.join(map(str, labels))}")


def test_ids_that_nobody_holds_are_refused(tmp_path):
    highest = len(prepare(config(), 3).dataset.y_train) - 1
    forget = ids_file(tmp_path, [5, highest + 1, highest + 7])
    message = refusal(3, forget=forget)
    assert f"forget={forget!r} names sample {highest + 1}, which no client holds" in message
    assert f"0 to {highest}" in message
    # The last one there is can be forgotten, but only once.
    last = ids_file(tmp_path, [highest], "last.txt")
    assert prepare(config(forget=last), 3).forgettings[0].request.ids == (highest,)
    assert f"names sample {highest}" in refusal(3, forget=f"{last};{last}")


def test_a_file_of_ids_that_is_not_there_is_refused(tmp_path):
    forget = f"ids:{tmp_path / 'missing.txt'}"
    assert f"forget={forget!r}" in refusal(3, forget=forget)


def test_every_sample_but_one_is_too_much_and_every_sample_but_two_is_not(tmp_path):
    total = len(prepare(config(), 3).dataset.y_train)
    almost = ids_file(tmp_path, range(total - 1), "almost.txt")
    assert "something to learn from" in refusal(3, forget=almost)
    left = ids_file(tmp_path, range(total - 2), "left.txt")
    (forgetting,) = prepare(config(forget=left), 3).forgettings
    assert sum(map(len, forgetting.samples.values())) == total - 2


def test_clients_of_a_forgetting_are_in_order():
    nothing = np.array([0])
    forgetting = Forgetting(Request(text="", ids=(0,)), {5: nothing, 1: nothing, 3: nothing}, None)
    assert forgetting.clients == [1, 3, 5]
