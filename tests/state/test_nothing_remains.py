"""After a request no byte below a state-dir is left of what was forgotten."""

import numpy as np
import pytest

from split_unlearning.simulations.config import RunConfig
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.segment import LocalSegment
from split_unlearning.strategies.server.setting import SegmentSetting
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.local_grid import dealt
from tests.state.bench import SLICED, certificate, folders, found, learn, stopped, unlearn

ASKING, OTHER = 1, 0
WINDOW = 32


def windows(data):
    """Pieces of some floats that no other floats look like; a copy of any half holds one."""
    pieces = [data[start : start + WINDOW] for start in range(0, len(data) - WINDOW + 1, WINDOW)]
    # Zeros, which a ReLU leaves, are everywhere.
    return {piece for piece in pieces if np.count_nonzero(np.frombuffer(piece, np.float32)) > 5}


def rows_of(path, client, ids):
    """The smashed data that the server keeps of some samples, as bytes, by id."""
    shard = TensorStore(folders(path)["server"]).load(f"shard-{client}-0")
    places = [shard["ids"].tolist().index(one) for one in ids]
    return windows(b"".join(shard["smashed"][place].numpy().tobytes() for place in places))


def weights_of(path, folder, *names):
    """What segments and checkpoints hold, as bytes."""
    store = TensorStore(folders(path)[folder])
    loaded = [tensor for name in names for tensor in store.load(name).values()]
    return {piece for tensor in loaded for piece in windows(tensor.numpy().tobytes())}


def fresh_weights(dataset):
    """What a server segment holds before it is trained, as bytes."""
    config = RunConfig()
    shape = (config.cut_model(), dataset.input_shape, dataset.num_classes)
    server = LocalSegment(SegmentSetting(*shape, config.training()))
    weights = server.call(ServerModel.state).values()
    server.close()
    return {piece for tensor in weights for piece in windows(tensor.numpy().tobytes())}


def texts_of(ids):
    """Ids as a file of numbers, of text and of JSON would hold them."""
    return {int(one).to_bytes(8, "little") for one in ids} | {str(one).encode() for one in ids}


@pytest.mark.parametrize("interrupted", ["", "prepared", "committed by the client"])
@pytest.mark.parametrize("kind", ["class", "ids"])
def test_no_byte_is_left_of_what_was_forgotten(kind, interrupted, dealing, tmp_path):
    dataset, plan = dealing
    path = tmp_path / "state"
    held = plan.train[ASKING]
    gone = held[dataset.y_train[held] == 2]
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(map(str, gone)))
    request = ("class:2", ASKING) if kind == "class" else (f"ids:{file}", ASKING)
    # Two slices on both sides; the asking client's shard is in the server's first.
    settings = {**SLICED, "dataset": dataset.name}
    with dealt(dataset, plan):
        learn(path, settings)

        smashed, ids = rows_of(path, ASKING, gone), texts_of(gone)
        old = weights_of(path, f"client {ASKING}", "segment", "step-1")
        # What no step has changed yet is what training without these samples begins with, too.
        old |= weights_of(path, "server", "segment", "step-0") - fresh_weights(dataset)
        whole_shard = rows_of(path, ASKING, held)
        others = {OTHER: rows_of(path, OTHER, plan.train[OTHER])}
        retained = np.setdiff1d(np.concatenate(plan.train), gone)
        kept_ids = {int(one).to_bytes(8, "little") for one in retained}
        assert min(map(len, (smashed, old, whole_shard, others[OTHER]))) > 20
        # Everything is found before: else that it is not found afterwards would say nothing.
        for patterns in (smashed, old, whole_shard, others[OTHER], kept_ids):
            assert found(path, patterns) == patterns
        assert {one for one in ids if len(one) == 8} <= found(path, ids)

        if interrupted:
            with stopped(interrupted), pytest.raises(KeyboardInterrupt):
                unlearn(path, settings, request)
            assert found(path, smashed) == smashed
            # A process that was stopped is followed by another one; the request need not be told.
            unlearn(path, settings, nodes=1)
        else:
            unlearn(path, settings, request)

        assert found(path, smashed) == set()
        assert found(path, old) == set()
        assert found(path, whole_shard) == set()
        assert found(path, ids) == set()
        assert found(path, others[OTHER]) == others[OTHER]
        assert found(path, kept_ids) == kept_ids

        assert certificate(path, settings)["holds"]
        assert found(path, smashed | old | whole_shard | ids) == set()


def test_nothing_is_left_of_a_client_that_was_dropped(dealing, tmp_path):
    dataset, plan = dealing
    path = tmp_path / "state"
    settings = {**SLICED, "dataset": dataset.name}
    with dealt(dataset, plan):
        learn(path, settings)
        gone = plan.train[ASKING]
        patterns = weights_of(path, "server", "segment", "step-0") - fresh_weights(dataset)
        patterns |= rows_of(path, ASKING, gone)
        ids = texts_of(gone)
        assert found(path, patterns) == patterns
        assert found(path, ids)
        unlearn(path, settings, (f"client:{ASKING}", ASKING), drop=True)
        assert found(path, patterns) == set()
        assert found(path, ids) == set()
