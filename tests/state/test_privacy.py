"""Clients and server read and write their own folder of a state-dir alone, and nobody else may."""

import os
import stat
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.local_grid import LocalGrid, client_of
from tests.state.bench import SHORT, SLICED, ask, certificate, learn, outcome, unlearn

_FILE_EVENTS = {"open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir"}

SETTINGS = {
    "splitwiper": SLICED,
    "vanilla": {**SHORT, "strategy": "vanilla"},
    "splitfed": {**SHORT, "strategy": "splitfed", "client_sync": "none"},
}


class Witness:
    """Says who touched what: an audit hook, which no process can be rid of again."""

    def __init__(self):
        self._here = threading.local()
        self._folder = ""
        self.touched = set()
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if not self._folder or event not in _FILE_EVENTS:
            return
        for path in arguments[:2]:
            if isinstance(path, str | os.PathLike) and str(path).startswith(self._folder):
                inside = Path(path).relative_to(self._folder).parts
                who = getattr(self._here, "client", "the server or the run")
                self.touched.add((who, "/".join(inside[: 2 if inside[:1] == ("clients",) else 1])))

    @contextmanager
    def watching(self, folder):
        """Tell apart what each client does while it answers from all else."""
        answer = LocalGrid.answer

        def watched(grid, message):
            self._here.client = client_of(message.metadata.dst_node_id)
            try:
                return answer(grid, message)
            finally:
                del self._here.client

        self.touched = set()
        with patch.object(LocalGrid, "answer", watched):
            self._folder = str(folder)
            yield
            self._folder = ""


@pytest.fixture(scope="module")
def witness():
    return Witness()


def assert_apart(touched, clients):
    """These clients touch their own folder alone, and nobody else one of theirs."""
    for who, what in touched:
        if who == "the server or the run":
            assert not what.startswith("clients"), what
        else:
            # The first to keep something makes the folder of all clients' folders, and syncs both
            # that folder and the one that it lies in.
            assert what in ("", "clients", f"clients/{who}")
    assert {who for who, _ in touched} == {*clients, "the server or the run"}


@pytest.mark.parametrize("strategy", SETTINGS)
def test_nobody_opens_what_is_another_s(strategy, witness, digits, tmp_path):
    path, settings = tmp_path / "state", {**SETTINGS[strategy], "dataset": digits}
    with witness.watching(path):
        learn(path, settings)
        assert_apart(witness.touched, {0, 1, 2})
        witness.touched.clear()
        ask(path, ("class:2", 1))
        # The command reads of clients what it must: which samples the asking one still holds.
        of_clients = {what for _, what in witness.touched if what.startswith("clients")}
        assert of_clients == {"clients/1"}
        witness.touched.clear()
        unlearn(path, settings, nodes=3)
        assert_apart(witness.touched, {1} if strategy == "splitwiper" else {0, 1, 2})
        witness.touched.clear()
        certificate(path, settings)
        assert_apart(witness.touched, {0, 1, 2})


@contextmanager
def out_of_reach(path):
    """Take the server's folder away while a client answers, and the clients' while none does."""
    away = path.parent / "away"
    away.mkdir(parents=True, exist_ok=True)
    answer = LocalGrid.answer

    def hide(name):
        if (path / name).exists():
            (path / name).rename(away / name)

    def bring(name):
        if (away / name).exists():
            (away / name).rename(path / name)

    def answer_alone(grid, message):
        bring("clients")
        hide("server")
        try:
            return answer(grid, message)
        finally:
            hide("clients")
            bring("server")

    with patch.object(LocalGrid, "answer", answer_alone):
        hide("clients")
        try:
            yield
        finally:
            bring("clients")


@pytest.mark.parametrize("strategy", SETTINGS)
def test_everybody_works_where_the_other_s_folder_is_not(strategy, digits, tmp_path):
    settings = {**SETTINGS[strategy], "dataset": digits}
    paths = [tmp_path / name / "state" for name in ("apart", "together")]
    learn(paths[1], settings)
    unlearn(paths[1], settings, ("class:2", 1), nodes=3)
    with out_of_reach(paths[0]):
        learn(paths[0], settings)
    ask(paths[0], ("class:2", 1))
    with out_of_reach(paths[0]):
        unlearn(paths[0], settings, nodes=3)
        assert certificate(paths[0], settings)["holds"]
    assert outcome(paths[0]) == outcome(paths[1])


def test_everything_is_for_its_owner_only(digits, tmp_path):
    path, settings = tmp_path / "state", {**SLICED, "dataset": digits}
    before = os.umask(0)
    try:
        learn(path, settings)
        unlearn(path, settings, ("class:2", 1))
        certificate(path, settings)
    finally:
        os.umask(before)
    modes = {one: stat.S_IMODE(one.stat().st_mode) for one in [path, *path.rglob("*")]}
    assert {path / "result.json", path / "certificate-key.pem", path / "lock"} <= modes.keys()
    for one, mode in modes.items():
        assert mode == (0o700 if one.is_dir() else 0o600), one
