"""Requests: what they mean, and how the ones that mean nothing are refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.unlearning.request import Request, parse_requests

NAMES = ("cat", "dog", "bird", "0")


def refusal(call, *arguments):
    """Return the one line with which a call is refused."""
    with pytest.raises(UserError) as refused:
        call(*arguments)
    message = str(refused.value)
    assert message.startswith("forget=")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("class:bird", {"client": 3, "label": "bird"}),
        ("class:2", {"client": 3, "label": "2"}),
        ("class:a:b", {"client": 3, "label": "a:b"}),
        ("client:1", {"client": 1}),
        ("client:0", {"client": 0}),
        ("samples:0.5@class:2", {"client": 3, "label": "2", "share": 0.5}),
        ("samples:1@class:bird", {"client": 3, "label": "bird", "share": 1.0}),
        ("samples:1e-3@class:bird", {"client": 3, "label": "bird", "share": 0.001}),
        ("ids:/data/ids.txt", {"client": None, "ids_file": "/data/ids.txt"}),
    ],
)
def test_every_form_is_read(text, meaning):
    assert parse_requests(text, 3) == [Request(text=text, **meaning)]


def test_several_requests_keep_their_order_and_gaps_mean_nothing():
    found = parse_requests(" class:bird ;; client:2; ;samples:0.1@class:0;", 1)
    assert [request.text for request in found] == ["class:bird", "client:2", "samples:0.1@class:0"]
    assert [request.client for request in found] == [1, 2, 1]


@pytest.mark.parametrize("text", ["", " ", ";", " ; ;"])
def test_nothing_to_forget_is_no_request(text):
    assert parse_requests(text, 0) == []


@pytest.mark.parametrize(
    "text",
    [
        "bird",
        "class:",
        "class",
        "Class:bird",
        "label:bird",
        ":bird",
        "client:",
        "client:-1",
        "client:one",
        "client:1.0",
        "client:1 2",
        "samples:",
        "samples:0.5",
        "samples:0.5@",
        "samples:0.5@bird",
        "samples:0.5@client:1",
        "samples:0.5@class:",
        "samples:@class:2",
        "samples:0@class:2",
        "samples:-0.5@class:2",
        "samples:1.01@class:2",
        "samples:nan@class:2",
        "samples:inf@class:2",
        "samples:half@class:2",
        "samples:50%@class:2",
        "ids:",
        "ids:ids.txt",
        "ids:./ids.txt",
        "cl\nass:2",
    ],
)
def test_what_cannot_be_read_is_refused_with_the_part_that_cannot(text):
    for whole in (text, f"class:bird;{text}"):
        message = refusal(parse_requests, whole, 0)
        assert message.startswith(f"forget={text.strip()!r} is not possible; allowed: ")
        assert "class:bird" not in message


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    st.builds(
        Request,
        text=TEXTS,
        client=st.none() | st.integers(0, 2**40),
        label=TEXTS,
        share=st.floats(0, 1, exclude_min=True),
        ids=st.lists(st.integers(0, 2**62)).map(tuple),
        ids_file=TEXTS,
    )
)
@settings(deadline=None)
def test_a_request_survives_its_journey_in_an_instruction(request):
    field = request.to_field()
    assert isinstance(field, str)
    # But for the user's own words, which may name a path of the server's.
    assert Request.from_field(field) == replace(request, text="")


@pytest.mark.parametrize(
    ("label", "index"), [("cat", 0), ("bird", 2), ("2", 2), ("1", 1), ("0", 3), ("", None)]
)
def test_a_label_is_a_name_before_it_is_a_number(label, index):
    assert Request(text="", client=0, label=label).label_index(NAMES) == index


@pytest.mark.parametrize("label", ["4", "-1", "fish", "CAT", " cat", "1.0"])
def test_a_label_that_the_data_set_lacks_is_refused_with_those_it_has(label):
    (request,) = parse_requests(f"samples:0.5@class:{label}", 0)
    message = refusal(request.label_index, NAMES)
    assert f"@class:{label}'" in message
    assert message.endswith("one of the 4 labels: cat, dog, bird, 0")


HOLDINGS = st.dictionaries(st.integers(0, 2**40), st.integers(0, 3), max_size=40)


def arrays(holding):
    return np.array(list(holding), dtype=np.int64), np.array(list(holding.values()), dtype=np.int64)


@settings(deadline=None)
@given(
    HOLDINGS,
    st.none() | st.integers(0, 2),
    st.sampled_from(["", *NAMES, "1", "2"]),
    st.lists(st.integers(0, 2**40), max_size=3),
    st.data(),
)
def test_select_means_the_samples_that_a_search_finds(holding, client, label, strangers, data):
    ids = strangers
    if holding:
        ids += data.draw(st.lists(st.sampled_from(sorted(holding)), max_size=10))
    request = Request(text="", client=client, label=label, ids=tuple(ids))
    number = {"": None, "cat": 0, "dog": 1, "1": 1, "bird": 2, "2": 2, "0": 3}[label]
    for holder in range(3):
        expected = [
            sample
            for sample, its_label in sorted(holding.items())
            if client in (None, holder)
            and (not ids or sample in ids)
            and number in (None, its_label)
        ]
        selected = request.select(holder, *arrays(holding), NAMES, seed=0)
        assert selected.dtype == np.int64
        assert selected.tolist() == expected


@settings(deadline=None)
@given(HOLDINGS, st.floats(0, 1, exclude_min=True), st.integers(0, 5))
def test_a_share_is_that_part_of_the_label_and_at_least_one(holding, share, seed):
    request = Request(text="", client=0, label="dog", share=share)
    ids, labels = arrays(holding)
    selected = request.select(0, ids, labels, NAMES, seed)
    of_label = {sample for sample, label in holding.items() if label == 1}
    assert set(selected.tolist()) <= of_label
    assert selected.tolist() == sorted(set(selected.tolist()))
    if not of_label:
        assert len(selected) == 0
    else:
        assert len(selected) >= 1
        assert abs(len(selected) - share * len(of_label)) <= 0.5 or len(selected) == 1
    assert request.select(0, ids, labels, NAMES, seed).tolist() == selected.tolist()
    # It does not depend on the order in which samples are held.
    assert request.select(0, ids[::-1], labels[::-1], NAMES, seed).tolist() == selected.tolist()


@pytest.mark.parametrize(
    ("share", "samples", "size"),
    [(0.5, 10, 5), (0.1, 10, 1), (0.01, 10, 1), (0.9, 10, 9), (0.26, 10, 3), (1.0, 10, 10)],
)
def test_the_size_of_a_share(share, samples, size):
    request = Request(text="", client=0, label="cat", share=share)
    selected = request.select(0, np.arange(samples), np.zeros(samples, np.int64), NAMES, 0)
    assert len(selected) == size


def test_a_share_is_drawn_by_seed_and_by_client():
    ids, labels = np.arange(100), np.zeros(100, np.int64)

    def drawn(client, seed):
        request = Request(text="", client=client, label="cat", share=0.3)
        return tuple(request.select(client, ids, labels, NAMES, seed).tolist())

    assert len({drawn(client, seed) for client in range(3) for seed in range(3)}) == 9
    # Not the first ones, nor a run of neighbours.
    assert max(drawn(0, 0)) - min(drawn(0, 0)) > 50


def test_ids_are_read_from_a_file_sorted_and_once(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("12\n3\n\n 7 \r\n3\n")
    (request,) = parse_requests(f"ids:{path}", 0)
    loaded = request.loaded()
    assert loaded == Request(text=request.text, ids=(3, 7, 12))
    assert loaded.loaded() is loaded
    selected = loaded.select(1, np.array([1, 3, 12]), np.zeros(3, np.int64), NAMES, 0)
    assert selected.tolist() == [3, 12]


def test_a_request_without_a_file_is_loaded_already():
    (request,) = parse_requests("class:bird", 0)
    assert request.loaded() is request


@pytest.mark.parametrize(
    "content",
    [b"", b"\n \n", b"1\ntwo\n", b"1.5\n", b"-1\n3\n", b"\xff\xfe\x00", b"1,2,3"],
)
def test_a_file_of_anything_but_ids_is_refused(tmp_path, content):
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    (request,) = parse_requests(f"ids:{path}", 0)
    message = refusal(request.loaded)
    assert str(path) in message
    assert "sample id" in message


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "missing.txt", tmp_path):
        (request,) = parse_requests(f"ids:{path}", 0)
        assert repr(f"ids:{path}") in refusal(request.loaded)


def test_an_id_that_no_sample_can_have_is_refused(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text(f"{2**63}\n")
    (request,) = parse_requests(f"ids:{path}", 0)
    with pytest.raises(UserError):
        request.loaded().select(0, np.arange(3), np.zeros(3, np.int64), NAMES, 0)
