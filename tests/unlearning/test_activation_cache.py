"""The server's cache: whole shards, in chunks, with keys that no other client changes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearning.activation_cache import ActivationCache, epoch_order


def upload(samples, salt=0):
    """Return smashed data, labels and ids that no other upload has."""
    smashed = torch.arange(samples * 6, dtype=torch.float32).reshape(samples, 2, 3) + 1000 * salt
    labels = torch.arange(samples) % 3
    ids = np.arange(samples, dtype=np.int64) * 7 + salt
    return smashed, labels, ids


def fill(cache, client, part, borders=()):
    """Upload in chunks that end at `borders`."""
    smashed, labels, ids = part
    edges = [0, *borders, len(ids)]
    for chunk, (start, stop) in enumerate(pairwise(edges)):
        cache.add(client, chunk, smashed[start:stop], labels[start:stop], ids[start:stop])


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 12), max_size=4).map(sorted), st.lists(st.integers(0, 5)).map(sorted)
)
def test_one_chunk_or_many_give_the_same_samples(first, second):
    whole, chunked = ActivationCache(), ActivationCache()
    for cache, borders in ((whole, ((), ())), (chunked, (second, first))):
        fill(cache, 3, upload(5, salt=3), borders[0])
        fill(cache, 1, upload(12, salt=1), borders[1])
    for one, other in zip(whole.samples(), chunked.samples(), strict=True):
        assert one.tolist() == other.tolist()
    assert chunked.bytes == whole.bytes
    assert torch.equal(chunked.smashed(1), upload(12, salt=1)[0])


def test_samples_come_client_by_client_in_upload_order():
    cache = ActivationCache()
    fill(cache, 5, upload(2, salt=5))
    fill(cache, 0, upload(3, salt=0), borders=(1,))
    smashed, labels, keys = cache.samples()
    assert cache.clients() == [0, 5]
    assert torch.equal(smashed, torch.cat([upload(3, salt=0)[0], upload(2, salt=5)[0]]))
    assert labels.tolist() == [0, 1, 2, 0, 1]
    assert keys.dtype == np.int64
    assert keys.tolist() == [0, 7, 14, 5 * 2**40 + 5, 5 * 2**40 + 12]


def test_the_same_id_on_two_clients_has_two_keys():
    cache = ActivationCache()
    for client in range(4):
        fill(cache, client, upload(5))
    assert len(set(cache.samples()[2].tolist())) == 20


def test_chunk_0_replaces_the_whole_shard_of_that_client_alone():
    cache = ActivationCache()
    fill(cache, 0, upload(6, salt=1), borders=(2, 4))
    fill(cache, 1, upload(4, salt=2))
    smaller = upload(3, salt=9)
    cache.add(0, 0, *smaller)
    assert torch.equal(cache.smashed(0), smaller[0])
    assert torch.equal(cache.smashed(1), upload(4, salt=2)[0])
    assert len(cache.samples()[2]) == 7
    with pytest.raises(ValueError, match="chunk 3 after 1 chunks"):
        cache.add(0, 3, *upload(1))


def test_drop_removes_a_shard_and_nothing_else():
    cache = ActivationCache()
    fill(cache, 0, upload(6))
    fill(cache, 1, upload(4, salt=2))
    cache.drop(0)
    cache.drop(0)
    assert cache.clients() == [1]
    assert torch.equal(cache.samples()[0], upload(4, salt=2)[0])
    with pytest.raises(KeyError):
        cache.smashed(0)
    with pytest.raises(ValueError, match="chunk 1 after 0 chunks"):
        cache.add(0, 1, *upload(2))


@pytest.mark.parametrize("chunk", [1, 3, -1])
def test_a_chunk_out_of_turn_is_refused_and_changes_nothing(chunk):
    cache = ActivationCache()
    fill(cache, 4, upload(6), borders=(3,))
    before = [part.tolist() for part in cache.samples()]
    with pytest.raises(ValueError, match=f"client 4 sent chunk {chunk} after 2 chunks"):
        cache.add(4, chunk, *upload(2))
    assert [part.tolist() for part in cache.samples()] == before
    cache.add(4, 2, *upload(2, salt=1))
    assert len(cache.samples()[1]) == 8


def test_a_first_chunk_that_is_not_chunk_0_is_refused():
    cache = ActivationCache()
    with pytest.raises(ValueError, match="client 2 sent chunk 1 after 0 chunks"):
        cache.add(2, 1, *upload(2))
    assert cache.clients() == []


@pytest.mark.parametrize("short", [0, 1, 2])
@pytest.mark.parametrize("chunk", [0, 1])
def test_lengths_that_differ_are_refused_and_change_nothing(short, chunk):
    cache = ActivationCache()
    fill(cache, 2, upload(5))
    before = [part.tolist() for part in cache.samples()]
    parts = [part[:-1] if place == short else part for place, part in enumerate(upload(3))]
    lengths = [len(part) for part in parts]
    expected = "client 2 sent {} activations, {} labels and {} ids".format(*lengths)
    with pytest.raises(ValueError, match=expected):
        cache.add(2, chunk, *parts)
    assert [part.tolist() for part in cache.samples()] == before


def test_an_empty_cache_has_nothing_to_train_on():
    cache = ActivationCache()
    assert cache.clients() == []
    assert cache.bytes == 0
    with pytest.raises(ValueError, match="empty"):
        cache.samples()
    fill(cache, 0, upload(0))
    with pytest.raises(ValueError, match="empty"):
        cache.samples()


def test_empty_shards_are_skipped():
    cache = ActivationCache()
    fill(cache, 0, upload(0))
    fill(cache, 1, upload(3))
    # A chunk without samples between others.
    fill(cache, 2, upload(4, salt=2), borders=(2, 2))
    assert cache.clients() == [1, 2]
    assert len(cache.samples()[2]) == 7
    assert cache.smashed(0).shape == (0, 2, 3)


def test_bytes_are_those_of_smashed_data_and_labels():
    cache = ActivationCache()
    fill(cache, 0, upload(6), borders=(1,))
    assert cache.bytes == 6 * (6 * 4 + 8)
    fill(cache, 1, upload(2))
    assert cache.bytes == 8 * (6 * 4 + 8)
    cache.drop(0)
    assert cache.bytes == 2 * (6 * 4 + 8)


def test_an_epoch_visits_every_sample_once_in_an_order_of_its_own():
    cache = ActivationCache()
    fill(cache, 0, upload(30))
    keys = cache.samples()[2]
    orders = {tuple(epoch_order(keys, 0, "train", epoch).tolist()) for epoch in range(20)}
    assert len(orders) == 20
    assert {tuple(sorted(visited)) for visited in orders} == {tuple(range(30))}
    assert tuple(epoch_order(keys, 1, "train", 0).tolist()) not in orders
    assert epoch_order(keys, 0, "train", 3).tolist() == epoch_order(keys, 0, "train", 3).tolist()
    assert epoch_order(keys, 0, "train", 3).dtype == torch.int64


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3), st.integers(0, 100), st.integers(0, 50))
def test_the_others_keep_their_order_when_a_client_is_dropped(gone, seed, epoch):
    cache = ActivationCache()
    for client in range(4):
        fill(cache, client, upload(3 + client, salt=client))
    keys = cache.samples()[2]
    before = keys[epoch_order(keys, seed, "train", epoch).numpy()]
    cache.drop(gone)
    keys = cache.samples()[2]
    after = keys[epoch_order(keys, seed, "train", epoch).numpy()]
    assert after.tolist() == [key for key in before.tolist() if key // 2**40 != gone]
    assert len(after) == len(before) - 3 - gone
