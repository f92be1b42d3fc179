"""Requests that come later to labels that the server cannot read."""

import numpy as np
import pytest

from split_unlearning.simulations.state.state_dir import open_state
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.protocol.test_splitwiper_plus import Cached
from tests.state.bench import SLICED, certificate, digests_noted, learn, pieces, tree, unlearn

PLUS = {
    **SLICED,
    "strategy": "splitwiper-plus",
    "expansion": "1-3",
    "epsilon": 8,
    "privacy_unit": "element",
    "secrets": "drawn",
}


@pytest.fixture(scope="module", params=["replicate", "modes"])
def settings(request, digits):
    return {**PLUS, "dataset": digits, "copies": request.param}


def kept(path, client, name):
    return TensorStore(open_state(str(path)).client(client)).load(name)


def test_requests_that_come_later_keep_the_map_and_can_be_verified(settings, tmp_path):
    path, cached = tmp_path / "state", Cached()
    with cached.patch:
        learn(path, settings)
        agreed = [kept(path, client, "agreement") for client in range(3)]
        before = digests_noted(path)
        run = unlearn(path, settings, ("class:2", 1))
        unlearn(path, settings, ("samples:0.5@class:1", 1), ("client:0", 0))
        uploaded = len(cached.chunks)
        # Nobody but who asks: there is no other process.
        assert len(run.grid.contexts) == 1
        changed = [
            one
            for one in before["clients"]
            if before["clients"][one] != run.digests["clients"][one]
        ]
        assert changed == ["1"]
        # The map of labels is that of learning, though one of its labels is gone.
        for client in range(3):
            now = kept(path, client, "agreement")
            assert all((now[name] == agreed[client][name]).all() for name in now)
        releases = run.phases[-1]["privacy"]
        state = pieces(path)
        assert certificate(path, settings)["holds"]
        assert pieces(path) == state
    # Verifying shows the server nothing that it has not: the last uploads, number by number.
    last = {}
    for client, *parts in cached.chunks[:uploaded]:
        last[client] = parts
    again = {client: parts for client, *parts in cached.chunks[uploaded:]}
    assert set(again) == {0, 1, 2}
    for client, parts in again.items():
        assert all(
            np.array_equal(one, other) for one, other in zip(parts, last[client], strict=True)
        )
    # What was learned first, and what the request sent anew.
    assert releases["uploads"] == {"0": 1, "1": 2, "2": 1}
    assert releases["releases"] == 2 * (3 if settings["copies"] == "replicate" else 1)


def test_what_hides_labels_is_on_the_clients_side_alone(settings, tmp_path):
    path = tmp_path / "state"
    learn(path, settings)
    secrets = [kept(path, client, "own-secret")["secret"].numpy().tobytes() for client in range(3)]
    secrets.append(kept(path, 0, "agreement")["secret"].numpy().tobytes())
    assert len(set(secrets)) == 4
    elsewhere = {name: data for name, data in tree(path).items() if not name.startswith("clients/")}
    assert elsewhere
    assert not any(secret in data for secret in secrets for data in elsewhere.values())
