"""What verification finds: training that is not exact, and parts that were exchanged."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load, save

from split_unlearning.foundations.errors import StateError
from split_unlearning.simulations.state.state_dir import open_state
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.unlearning.state_folder import checksum
from tests.state.bench import (
    NUM_CLIENTS,
    SHORT,
    ask,
    certificate,
    folders,
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


@pytest.mark.parametrize("part", ["server", "client 2"])
def test_another_segment_is_refused(part, state, sliced):
    unlearn(state, sliced, ("class:2", 1))
    folder = state / part.replace("client ", "clients/")
    sign_again(folder, "segment", another_segment(folders(state)[part]["segment"]))
    with pytest.raises(StateError, match=f"the segment of {part} .* was exchanged"):
        certificate(state, sliced)


def test_another_segment_that_was_committed_is_refused(state, sliced):
    unlearn(state, sliced, ("class:2", 1))
    for part, said in (
        ("client 2", "the segment of client 2 .* was exchanged"),
        ("server", "do not belong together"),
    ):
        kept = folders(state)[part]
        segment = another_segment(kept["segment"])
        kept.begin("another")
        kept["segment"] = segment
        kept.flush()
        kept.commit("another")
        with pytest.raises(StateError, match=said):
            certificate(state, sliced)


def renamed(folder, new):
    """Give an older folder the attempt of a newer one, and redo its checksum."""
    manifest = folder / "current.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    newer = json.loads((new / "current.json").read_text(encoding="utf-8"))
    seal = {"sha256", "hmac-sha256"} & content.keys()
    content = {name: value for name, value in content.items() if name not in seal}
    content["attempt"] = newer["attempt"]
    content |= {name: checksum(content) for name in seal}
    manifest.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("keys", [False, True])
def test_a_state_that_was_rolled_back_is_refused(keys, sliced, tmp_path):
    settings = {**sliced, "key_dir": str(tmp_path / "keys")} if keys else sliced
    state = tmp_path / "state"
    learn(state, settings)
    old = shutil.copytree(state, tmp_path / "old")
    unlearn(state, settings, ("class:2", 1))
    assert certificate(state, settings)["holds"]
    new = shutil.copytree(state, tmp_path / "new")
    restore(old, state, "server", "clients/1")
    for folder in ("server", "clients/1"):
        renamed(state / folder, new / folder)
    said = "was edited" if keys else "is not the segment that the journal names"
    with pytest.raises(StateError, match=said):
        certificate(state, settings)


def test_exchanged_folders_of_clients_are_refused(state, sliced):
    for one, other in (("0", "away"), ("2", "0"), ("away", "2")):
        (state / "clients" / one).rename(state / "clients" / other)
    line = "belongs to client 2, and not to client 0: folders were exchanged"
    with pytest.raises(StateError, match=line):
        ask(state, ("class:2", 0))
    with pytest.raises(ClientFailureError, match=line):
        certificate(state, sliced)


def test_an_edited_shard_is_noticed_although_no_digest_needs_it(state, sliced):
    file = next(state.glob("server/shard*.safetensors"))
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StateError, match=f"{file.name} was edited"):
        certificate(state, sliced)


@pytest.mark.parametrize("file", ["journal.jsonl", "server/current.json", "clients/1/current.json"])
def test_with_keys_apart_an_edit_shows_although_its_checksum_is_redone(file, sliced, tmp_path):
    keys, state = tmp_path / "keys", tmp_path / "state"
    settings = {**sliced, "key_dir": str(keys)}
    learn(state, settings)
    assert {one.name for one in keys.iterdir()} == {
        "certificate-key.pem",
        "run.key",
        "server.key",
        *(f"client-{client}.key" for client in range(NUM_CLIENTS)),
    }
    *lines, last = (state / file).read_text(encoding="utf-8").splitlines(keepends=True)
    unkeyed = "".join([*lines, last]).replace("hmac-sha256", "sha256")
    (state / file).write_text(unkeyed, encoding="utf-8")
    with pytest.raises((StateError, ClientFailureError), match="is not sealed with"):
        unlearn(state, settings, ("class:2", 1))


def test_keys_that_lie_elsewhere_or_nowhere(sliced, tmp_path):
    keys, state = tmp_path / "keys", tmp_path / "state"
    settings = {**sliced, "key_dir": str(keys)}
    learn(state, settings)
    moved = str(keys.rename(tmp_path / "moved"))
    with pytest.raises(StateError, match=r"keys/run.key: No such file"):
        open_state(str(state))
    assert open_state(str(state), moved).config.key_dir == moved
    assert certificate(state, {**settings, "key_dir": moved})["holds"]
    (tmp_path / "moved" / "client-1.key").write_text("short", encoding="ascii")
    with pytest.raises(ClientFailureError, match=r"client-1.key is no key; allowed: 64 hex"):
        certificate(state, {**settings, "key_dir": moved})


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
    with pytest.raises(StateError, match=r"the segment of client 1 .* was exchanged"):
        certificate(state, sliced)
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
