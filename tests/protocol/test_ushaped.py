"""U-shaped split learning is the unsplit network, cut twice; labels stay home."""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import pytest

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.transport.frame import encode
from split_unlearning.transport.link import Link
from split_unlearning.unlearning.exactness import order
from tests.local_grid import LocalRun
from tests.protocol.test_vanilla import SEED, large_digits, same_bits, unsplit

__all__ = ["large_digits"]


@pytest.mark.parametrize("client_sync", ["none", "handoff"])
@pytest.mark.parametrize("model", ["cnn", "vgg"])
def test_one_client_equals_the_unsplit_network(large_digits, client_sync, model):
    dataset = "digits" if model == "cnn" else large_digits
    settings = {"momentum": 0.9, "weight_decay": 0.01}
    run = LocalRun(
        1,
        strategy="u-shaped",
        model=model,
        dataset=dataset,
        forget="",
        client_sync=client_sync,
        server_epochs=2,
        batch_size=64,
        learning_rate=0.02,
        seed=SEED,
        **settings,
    )
    owner = 0 if client_sync == "none" else "shared"
    parts = ("client", "trunk", "head")
    bottom, trunk, head = unsplit(model, dataset, 2, 64, owner, parts, lr=0.02, **settings)
    ends = {f"bottom.{name}": value for name, value in bottom.items()}
    ends |= {f"head.{name}": value for name, value in head.items()}
    assert same_bits(run.client_state(0), ends)
    assert same_bits(run.server_state, trunk)


def test_learns_and_forgets():
    run = LocalRun(5, strategy="u-shaped", server_epochs=12, forget="class:2")
    before, after = (phase["accuracy"] for phase in run.phases)
    assert before["unlearned"] > 0.9
    assert after["unlearned"] == 0
    assert before["retained"] > 0.9
    assert after["retained"] > 0.9


@contextmanager
def overheard():
    """Yield a list that fills with every frame that crosses a link, either way."""
    frames = []
    originals = {kind: kind._send for kind in Link.__subclasses__()}

    def recorded(link, request):
        reply = originals[type(link)](link, request)
        frames.extend(bytes(one) for one in (request, encode(reply.tensors, reply.fields)))
        return reply

    with ExitStack() as patches:
        for kind in originals:
            patches.enter_context(patch.object(kind, "_send", recorded))
        yield frames


def labels_by_batch(run, client, kind):
    """Yield the labels of each whole batch of a client's first turn, as bytes of a type."""
    ids = run.prepared.plan.train[client]
    visited = ids[order(ids, derive_seed(0, "order", "train", client, 0))]
    for start in range(0, len(visited) - 32, 32):
        yield run.prepared.dataset.y_train[visited[start : start + 32]].astype(kind).tobytes()


def test_no_label_crosses_the_link_nor_travels_in_an_upload():
    with overheard() as frames:
        run = LocalRun(2, strategy="u-shaped", forget="class:2", server_epochs=1)
    assert len(frames) > 100
    arrays = [
        array.data
        for _, content, answer in run.grid.sent
        for record in (content, answer)
        for named in record.array_records.values()
        for array in named.values()
    ]
    crossed = b"".join([*frames, *arrays])
    assert b"labels" not in crossed
    for client in range(2):
        for kind in (np.int64, np.int32, np.int16, np.uint8, np.float32):
            assert not any(labels in crossed for labels in labels_by_batch(run, client, kind))


def test_the_same_search_finds_the_labels_of_vanilla():
    with overheard() as frames:
        run = LocalRun(2, strategy="vanilla", forget="", server_epochs=1)
    crossed = b"".join(frames)
    assert b"labels" in crossed
    assert all(labels in crossed for labels in labels_by_batch(run, 1, np.int64))
