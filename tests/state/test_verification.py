"""What verification finds: training that is not exact, and parts that were exchanged."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load, save

from split_unlearning.foundations.errors import StateError
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.unlearning.state_folder import StateFolder, checksum
from tests.state.bench import (
    NUM_CLIENTS,
    SHORT,
    ask,
    certificate,
    learn,
    unlearn,
)


@pytest.mark.parametrize(
    ("strategy", "unlearning", "segment"),
    [
        ("splitwiper", "fine-tune", "client 1"),
        ("splitwiper", "none", "client 1"),
        ("vanilla", "fine-tune", "client 0"),
    ],
)
def test_what_is_not_exact_does_not_hold(strategy, unlearning, segment, digits, tmp_path):
    settings = {**SHORT, "dataset": digits, "strategy": strategy, "unlearning": unlearning}
    path = tmp_path / "state"
    learn(path, settings)
    assert certificate(path, settings)["holds"]
    unlearn(path, settings, ("class:2", 1), nodes=NUM_CLIENTS)
    found = certificate(path, settings)
    assert not found["holds"]
    difference = found["first_difference"]
    assert difference["segment"] == segment
    assert difference["kept"] != difference["reference"]


def another_segment(data):
    """The same segment with one bit of one weight changed."""
    weights = load(data)
    first = sorted(weights)[0]
    weights[first].view(torch.int32).reshape(-1)[0] ^= 1
    return save(weights)


def sign_again(folder, name, data):
    """Replace a file, and the hash of it in the manifest, and the manifest's own."""
    manifest = folder / "current.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content.pop("sha256")
    file = content["files"][name]
    (folder / file["file"]).write_bytes(data)
    file["sha256"] = hashlib.sha256(data).hexdigest()
    manifest.write_text(json.dumps({**content, "sha256": checksum(content)}), encoding="utf-8")


@pytest.mark.parametrize("folder", ["server", "clients/2"])
def test_another_segment_is_found(folder, state, sliced):
    unlearn(state, sliced, ("class:2", 1))
    kept = StateFolder(state / folder)["segment"]
    sign_again(state / folder, "segment", another_segment(kept))
    found = certificate(state, sliced)
    assert not found["holds"]
    named = "server" if folder == "server" else "client 2"
    assert found["first_difference"]["segment"] == named


def test_another_segment_that_was_committed_is_found(state, sliced):
    unlearn(state, sliced, ("class:2", 1))
    for folder in (state / "clients" / "2", state / "server"):
        kept = StateFolder(folder)
        segment = another_segment(kept["segment"])
        kept.begin("another")
        kept["segment"] = segment
        kept.flush()
        kept.commit("another")
        if folder.name == "2":
            found = certificate(state, sliced)
            assert found["first_difference"]["segment"] == "client 2"
    with pytest.raises(StateError, match="do not belong together"):
        certificate(state, sliced)


def restore(source, state, *folders):
    """Put parts back as they were in an older copy of a state-dir."""
    for name in folders:
        shutil.rmtree(state / name)
        shutil.copytree(source / name, state / name)


def test_parts_of_an_older_copy_are_refused(learned, state, sliced):
    unlearn(state, sliced, ("class:2", 1))
    new = shutil.copytree(state, state.parent / "new")
    # The client alone: it would know of samples that it had forgotten.
    restore(learned, state, "clients/1")
    with pytest.raises(StateError, match=r"clients/1 is not what was kept there last"):
        ask(state, ("class:3", 1))
    assert not certificate(state, sliced)["holds"]
    # All but the journal: training without what clients know as forgotten gives what is kept.
    restore(learned, state, "server")
    for command in (certificate, unlearn_more):
        with pytest.raises(StateError, match=r"the server's part .* do not belong together"):
            command(state, sliced)
    # The server alone.
    restore(new, state, "clients/1")
    with pytest.raises(StateError, match=r"the server's part .* do not belong together"):
        certificate(state, sliced)
    # The journal alone.
    restore(new, state, "server")
    shutil.copy(learned / "journal.jsonl", state / "journal.jsonl")
    with pytest.raises(StateError, match=r"the server's part .* do not belong together"):
        unlearn(state, sliced, ("class:3", 0))


def unlearn_more(state, sliced):
    return unlearn(state, sliced, ("class:3", 0))


def test_a_client_that_does_not_ask_is_refused_when_it_is_older(digits, tmp_path):
    settings = {**SHORT, "dataset": digits, "strategy": "vanilla"}
    path = tmp_path / "state"
    learn(path, settings)
    old = shutil.copytree(path, tmp_path / "old")
    unlearn(path, settings, ("class:2", 1), nodes=NUM_CLIENTS)
    new = shutil.copytree(path, tmp_path / "new")
    restore(old, path, "clients/1")
    # Everybody trains again, and client 1 would do so with what it had forgotten.
    with pytest.raises(ClientFailureError, match=r"clients/1 is not what was kept there last"):
        unlearn(path, settings, ("class:2", 0), nodes=NUM_CLIENTS)
    restore(new, path, "clients/1")
    unlearn(path, settings, nodes=NUM_CLIENTS)
    assert certificate(path, settings)["holds"]
