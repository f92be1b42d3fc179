"""Tensors by name: what is loaded is what was saved, whatever keeps the bytes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from split_unlearning.unlearning.state_folder import StateFolder
from split_unlearning.unlearning.tensor_store import TensorStore

ARRAYS = st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text("abc.-_0", min_size=1), ARRAYS, max_size=4))
def test_what_is_loaded_is_what_was_saved(values):
    kept = {}
    TensorStore(kept).save("segment", {name: torch.tensor(one) for name, one in values.items()})
    assert all(type(one) is bytes for one in kept.values())
    loaded = TensorStore(kept).load("segment")
    assert loaded.keys() == values.keys()
    for name, one in values.items():
        wanted = torch.tensor(one)
        assert (loaded[name].dtype, loaded[name].shape) == (wanted.dtype, wanted.shape)
        assert loaded[name].numpy().tobytes() == wanted.numpy().tobytes()


def test_a_name_that_was_never_saved_is_none_and_can_be_forgotten():
    store = TensorStore({})
    assert store.load("segment") is None
    store.forget("segment")
    store.save("segment", {})
    assert store.load("segment") == {}


def test_saving_again_replaces_all_of_it_and_nothing_else():
    kept = {}
    store = TensorStore(kept)
    store.save("segment", {"a": torch.zeros(2), "b": torch.ones(2)})
    store.save("momentum", {"a": torch.ones(3)})
    store.save("segment", {"b": torch.zeros(1)})
    assert {name: one.tolist() for name, one in store.load("segment").items()} == {"b": [0.0]}
    assert store.load("momentum")["a"].tolist() == [1.0] * 3
    store.forget("segment")
    assert store.load("segment") is None
    assert set(kept) == {"momentum"}


def test_views_that_share_memory_are_saved_apart():
    whole = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    parts = {"row": whole[1], "column": whole[:, 1], "turned": whole.T, "whole": whole}
    store = TensorStore({})
    store.save("segment", parts)
    loaded = store.load("segment")
    assert {name: one.tolist() for name, one in loaded.items()} == {
        name: one.tolist() for name, one in parts.items()
    }
    assert not any(one.requires_grad for one in loaded.values())


def test_what_was_saved_does_not_change_with_the_tensors():
    tensor = torch.zeros(3)
    store = TensorStore({})
    store.save("segment", {"a": tensor})
    tensor += 1
    store.load("segment")["a"].add_(5)
    assert store.load("segment")["a"].tolist() == [0.0] * 3


def test_a_folder_keeps_them_from_one_process_to_the_next(tmp_path):
    folder = StateFolder(tmp_path / "client", "server")
    folder.begin("one")
    TensorStore(folder).save("segment", {"a": torch.arange(5)})
    folder.flush()
    assert TensorStore(StateFolder(tmp_path / "client", "server")).load("segment") is None
    StateFolder(tmp_path / "client", "server").commit("one")
    committed = TensorStore(StateFolder(tmp_path / "client", "server"))
    assert committed.load("segment")["a"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(TypeError, match="begin"):
        committed.save("segment", {})
