"""The server's cache: whole shards, in chunks, with keys that no other client changes."""

import gc
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.foundations.errors import StateError
from split_unlearning.unlearning.activation_cache import ActivationCache, epoch_order
from split_unlearning.unlearning.exactness import batches
from split_unlearning.unlearning.state_folder import StateFolder
from split_unlearning.unlearning.tensor_store import TensorStore


def upload(samples, salt=0):
    """Return smashed data, labels and ids that no other upload has."""
    smashed = torch.arange(samples * 6, dtype=torch.float32).reshape(samples, 2, 3) + 1000 * salt
    labels = torch.arange(samples) % 3
    ids = np.arange(samples, dtype=np.int64) * 7 + salt
    return smashed, labels, ids


def held(cache):
    """Return smashed data, labels and keys of all samples, as lists."""
    samples = cache.samples()
    smashed = samples.smashed(torch.arange(len(samples)))
    return smashed.tolist(), samples.labels.tolist(), samples.keys.tolist()


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
    assert held(whole) == held(chunked)
    assert chunked.bytes == whole.bytes
    assert torch.equal(chunked.smashed(1), upload(12, salt=1)[0])


def test_samples_come_client_by_client_in_upload_order():
    cache = ActivationCache()
    fill(cache, 5, upload(2, salt=5))
    fill(cache, 0, upload(3, salt=0), borders=(1,))
    samples = cache.samples()
    assert cache.clients() == [0, 5]
    smashed = samples.smashed(torch.arange(5))
    assert torch.equal(smashed, torch.cat([upload(3, salt=0)[0], upload(2, salt=5)[0]]))
    assert samples.labels.tolist() == [0, 1, 2, 0, 1]
    assert samples.labels.dtype == torch.int64
    assert samples.keys.dtype == np.int64
    assert samples.keys.tolist() == [0, 7, 14, 5 * 2**40 + 5, 5 * 2**40 + 12]


def test_the_same_id_on_two_clients_has_two_keys():
    cache = ActivationCache()
    for client in range(4):
        fill(cache, client, upload(5))
    assert len(set(cache.samples().keys.tolist())) == 20


def test_chunk_0_replaces_the_whole_shard_of_that_client_alone():
    cache = ActivationCache()
    fill(cache, 0, upload(6, salt=1), borders=(2, 4))
    fill(cache, 1, upload(4, salt=2))
    smaller = upload(3, salt=9)
    cache.add(0, 0, *smaller)
    assert torch.equal(cache.smashed(0), smaller[0])
    assert torch.equal(cache.smashed(1), upload(4, salt=2)[0])
    assert len(cache.samples()) == 7
    with pytest.raises(ValueError, match="chunk 3 after 1 chunks"):
        cache.add(0, 3, *upload(1))


def test_drop_removes_a_shard_and_nothing_else():
    cache = ActivationCache()
    fill(cache, 0, upload(6))
    fill(cache, 1, upload(4, salt=2))
    cache.drop(0)
    cache.drop(0)
    assert cache.clients() == [1]
    assert held(cache)[0] == upload(4, salt=2)[0].tolist()
    with pytest.raises(KeyError):
        cache.smashed(0)
    with pytest.raises(ValueError, match="chunk 1 after 0 chunks"):
        cache.add(0, 1, *upload(2))


@pytest.mark.parametrize("chunk", [1, 3, -1])
def test_a_chunk_out_of_turn_is_refused_and_changes_nothing(chunk):
    cache = ActivationCache()
    fill(cache, 4, upload(6), borders=(3,))
    before = held(cache)
    with pytest.raises(ValueError, match=f"client 4 sent chunk {chunk} after 2 chunks"):
        cache.add(4, chunk, *upload(2))
    assert held(cache) == before
    cache.add(4, 2, *upload(2, salt=1))
    assert len(cache.samples()) == 8


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
    before = held(cache)
    parts = [part[:-1] if place == short else part for place, part in enumerate(upload(3))]
    lengths = [len(part) for part in parts]
    expected = "client 2 sent {} activations, {} labels and {} ids".format(*lengths)
    with pytest.raises(ValueError, match=expected):
        cache.add(2, chunk, *parts)
    assert held(cache) == before


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
    assert len(cache.samples()) == 7
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
    keys = cache.samples().keys
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
    keys = cache.samples().keys
    before = keys[epoch_order(keys, seed, "train", epoch).numpy()]
    cache.drop(gone)
    keys = cache.samples().keys
    after = keys[epoch_order(keys, seed, "train", epoch).numpy()]
    assert after.tolist() == [key for key in before.tolist() if key // 2**40 != gone]
    assert len(after) == len(before) - 3 - gone


# On disk, from one process to the next, and in memory piece by piece.


def kept(path, attempt):
    """Return a folder in which an attempt has begun, and the cache in it."""
    folder = StateFolder(path, "server")
    folder.begin(attempt)
    return folder, ActivationCache(folder)


def test_a_new_process_takes_up_what_was_committed(tmp_path):
    folder, cache = kept(tmp_path, "one")
    fill(cache, 11, upload(5, salt=11), borders=(2, 2))
    fill(cache, 2, upload(30, salt=2), borders=range(2, 30, 2))
    folder.flush()
    assert ActivationCache(StateFolder(tmp_path, "server")).clients() == []
    folder.commit("one")
    again = ActivationCache(StateFolder(tmp_path, "server"))
    assert held(again) == held(cache)
    assert (again.clients(), again.bytes) == (cache.clients(), cache.bytes) == ([2, 11], 35 * 32)
    assert torch.equal(again.smashed(2), upload(30, salt=2)[0])
    assert again.samples([11]).labels.dtype == torch.int64
    assert again.samples([11]).keys.dtype == np.int64


def test_a_shard_that_an_attempt_replaces_is_another_only_when_it_is_committed(tmp_path):
    folder, cache = kept(tmp_path, "one")
    fill(cache, 0, upload(6), borders=(2, 4))
    fill(cache, 1, upload(4, salt=1))
    folder.flush()
    folder.commit("one")
    before = held(cache)
    folder, cache = kept(tmp_path, "two")
    smashed = upload(3, salt=9)[0]
    assert cache.smashed(0).shape == (6, 2, 3)
    fill(cache, 0, upload(3, salt=9))
    cache.drop(1)
    folder.flush()
    assert cache.clients() == [0]
    assert torch.equal(cache.smashed(0), smashed)
    assert held(ActivationCache(StateFolder(tmp_path, "server"))) == before
    folder.commit("two")
    assert held(ActivationCache(StateFolder(tmp_path, "server"))) == held(cache)
    # No byte of a shard that is gone is left.
    assert len(list(tmp_path.iterdir())) == 2


def test_what_else_lies_in_the_folder_is_no_shard(tmp_path):
    folder, cache = kept(tmp_path, "one")
    fill(cache, 0, upload(3))
    TensorStore(folder).save("segment", {"a": torch.zeros(2)})
    folder.flush()
    folder.commit("one")
    assert ActivationCache(StateFolder(tmp_path, "server")).clients() == [0]


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_gathering_rows_is_indexing_one_tensor(data):
    cache, whole = ActivationCache(), []
    for client in data.draw(st.lists(st.integers(0, 6), unique=True, min_size=1, max_size=4)):
        part = upload(data.draw(st.integers(1, 9)), salt=client)
        borders = data.draw(st.lists(st.integers(0, len(part[2])), max_size=3).map(sorted))
        fill(cache, client, part, borders)
        whole.append((client, part[0]))
    wanted = data.draw(st.lists(st.sampled_from([client for client, _ in whole]), min_size=1))
    expected = torch.cat([part for client, part in sorted(whole) if client in wanted])
    samples = cache.samples(wanted)
    assert len(samples) == len(samples.labels) == len(samples.keys) == len(expected)
    rows = st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=12).map(torch.tensor)
    for each in data.draw(st.lists(rows, min_size=1, max_size=4)):
        gathered = samples.smashed(each)
        assert torch.equal(gathered, expected[each])
        # A copy: nobody can change what is cached.
        gathered.zero_()
    assert torch.equal(samples.smashed(), expected)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.sampled_from([1, 100, 1 << 24]), st.randoms(use_true_random=False))
def test_batches_are_the_same_however_much_is_read_at_a_time(batch_size, ahead, draw):
    cache = ActivationCache()
    fill(cache, 0, upload(7), borders=(2, 5))
    fill(cache, 3, upload(6, salt=3))
    samples = cache.samples()
    rows = torch.tensor(draw.sample(range(13), 13))
    with patch("split_unlearning.unlearning.activation_cache._AHEAD_BYTES", ahead):
        came = list(samples.in_turn(rows, batches(13, batch_size)))
    everything = samples.smashed()
    assert torch.equal(torch.cat([smashed for smashed, _ in came]), everything[rows])
    assert torch.equal(torch.cat([labels for _, labels in came]), samples.labels[rows])
    assert [len(labels) for _, labels in came] == [
        one.stop - one.start for one in batches(13, batch_size)
    ]


def test_nothing_but_labels_and_ids_stays_in_memory():
    cache = ActivationCache()
    smashed = torch.zeros(200, 63, 65)
    cache.add(0, 0, smashed, torch.zeros(200, dtype=torch.int64), np.arange(200))
    held_here = [one for one in gc.get_objects() if type(one) is torch.Tensor]
    large = [one for one in held_here if one.shape[1:] == smashed.shape[1:]]
    assert [one is smashed for one in large] == [True]


def test_a_shard_that_is_damaged_is_named(tmp_path):
    folder, cache = kept(tmp_path, "one")
    fill(cache, 3, upload(6))
    folder.flush()
    folder.commit("one")
    (file,) = tmp_path.glob("shard-*")
    file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(StateError, match=str(file)):
        ActivationCache(StateFolder(tmp_path, "server"))
