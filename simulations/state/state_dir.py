"""The folder that outlives a run: how to go on with what was learned, weeks later.

    run.toml               the config and the number of clients; written last, so that it is whole
    clients/<id>/          what only that client may hold
    server/                segment, checkpoints, activation cache
    journal.jsonl          every request: received, started, prepared, committed, measured
    result.json            what was measured
    certificate-key.pem    signs what `verify` finds; `certificate.json` is that

With ``key-dir`` the keys lie in that folder, apart from what they protect: the certificate's, the
journal's (``run.key``), the server's (``server.key``) and each client's (``client-<id>.key``).

A client's folder is written by that client alone, and read by it and, when it asks, by the command
line on its behalf; the server's is written by the server segment. The rest is the run's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from split_unlearning.foundations.errors import StateError, UserError, refuse
from split_unlearning.foundations.files import explained, locked, make_for_owner, write_durably
from split_unlearning.foundations.text import parsed
from split_unlearning.reporting.result import Phase, Result
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.tokenizer import Tokens
from split_unlearning.simulations.preparation import Preparation, deal, fingerprint
from split_unlearning.strategies.server.setting import Resources
from split_unlearning.transport.ledger import NetworkSpeed
from split_unlearning.unlearning.certificate import new_key, public_key
from split_unlearning.unlearning.journal import Journal
from split_unlearning.unlearning.seal import Seal
from split_unlearning.unlearning.state_folder import (
    FORMAT,
    StateFolder,
    check_format,
    checksum,
    damaged,
)

# What may differ from one run to the next: where things are, and how long and at what cost.
_MAY_DIFFER = {
    "state-dir",
    "key-dir",
    "out",
    "overwrite",
    "verify",
    "round-timeout",
    *NetworkSpeed.declared(),
    *Resources.declared(),
}


class StateDir:
    """A state-dir, read as it is; the folder need not exist.

    `key_dir` is where its keys lie now; by default where its config says.

    Raises
    ------
    StateError
        If what it holds is damaged, or of another format.
    UserError
        If it is a folder of something else.
    """

    def __init__(self, path: Path, key_dir: str = "") -> None:
        self.path = path
        self._key_dir = key_dir
        self.config: RunConfig | None = None
        """The config that was trained; None if nothing was yet."""
        self.num_clients = 0
        self.pretrained = ""
        """SHA-256 of the pretrained network that training began with; empty for none."""
        self._plan = self._public_key = ""
        with explained(path):
            if not self._run.exists():
                self._refuse_a_folder_of_something_else()
                self.journal = Journal(None)
                return
            written = self._run.read_bytes()
        try:
            content = parsed(tomllib.loads, written.decode())
            check_format(content, self._run)
            if content.pop("sha256") != checksum(content):
                raise damaged(self._run)
            self.num_clients, self._plan = int(content["clients"]), str(content["plan"])
            # A state from before there were pretrained networks does not name any.
            self.pretrained = str(content.get("pretrained", ""))
            self._public_key = str(content.get("public-key", ""))
            elsewhere = {"state-dir": str(path)} | ({"key-dir": key_dir} if key_dir else {})
            config = RunConfig.from_mapping(content["config"] | elsewhere)
        except StateError:
            raise
        except (ValueError, LookupError, TypeError) as error:
            raise StateError(f"{self._run} cannot be read: {error}") from error
        self.config, self._key_dir = config, config.key_dir
        if not self._journal.exists():
            raise StateError(f"{self._journal} is missing: what was done cannot be known")
        self.journal = Journal(self._journal, self._seal)

    @property
    def _seal(self) -> Seal:
        return Seal(_key_file(self._key_dir, "run"))

    def _refuse_a_folder_of_something_else(self) -> None:
        ours = {"lock", self._journal.name, self.key.name}
        # What a write that was cut off left.
        ours |= {f"{name}.part" for name in (*ours, self._run.name)}
        if self.path.exists():
            others = sorted({entry.name for entry in self.path.iterdir()} - ours)
            if others:
                allowed = f"a new or empty folder, or a state-dir; this one holds {others[0]!r}"
                raise refuse("state-dir", str(self.path), allowed)

    @property
    def _run(self) -> Path:
        return self.path / "run.toml"

    @property
    def _journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def key(self) -> Path:
        """The private key that signs certificates."""
        return Path(self._key_dir or self.path) / "certificate-key.pem"

    def signing_key(self) -> bytes:
        """Return the private key that signs certificates.

        Raises
        ------
        StateError
            If it is not the key that the state began with.
        """
        with explained(self.key):
            key = self.key.read_bytes()
        # A state from before its public key was written down does not name any.
        if self._public_key not in ("", public_key(key)):
            raise StateError(f"{self.key} is not the key that {self.path} began with")
        return key

    @property
    def certificate(self) -> Path:
        """The signed certificate, which `verify` writes."""
        return self.path / "certificate.json"

    @property
    def server(self) -> StateFolder:
        """The server's folder."""
        folder, key = self.server_files
        return StateFolder(Path(folder), "server", Seal(Path(key) if key else None))

    @property
    def server_files(self) -> tuple[str, str]:
        """The paths of the server's folder and of its key; empty for no key."""
        return str(self.path / "server"), str(_key_file(self._key_dir, "server") or "")

    def client(self, client: int) -> StateFolder:
        """Return a client's folder."""
        return client_folder(str(self.path), client, self._key_dir)

    def read_again(self) -> StateDir:
        """Return the state as it is now: until it was locked another process may have had it.

        Raises
        ------
        UserError
            As `open_state`.
        """
        return open_state(str(self.path), self._key_dir)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process away, for as long as this one lives or works in it.

        Raises
        ------
        StateError
            If another process has it, or the folder cannot be written to.
        """
        with ExitStack() as stack:
            with explained(self.path):
                if not self.path.exists():
                    make_for_owner(self.path)
                elif self.config is None:
                    self.path.chmod(0o700)
                stack.enter_context(locked(self.path))
            yield

    def begin(self, prepared: Preparation, received: list[dict[str, Any]]) -> None:
        """Begin a state; `received` are the fields of the journal's first events, see `agenda`."""
        self._key_dir = prepared.config.key_dir
        with explained(self.path):
            self._journal.unlink(missing_ok=True)
        with explained(self.key):
            make_for_owner(self.key.parent)
            if not (self._key_dir and self.key.exists()):
                # The keys of a key-dir may serve other state-dirs, too.
                write_durably(self.key, new_key())
        seal = self._seal
        seal.make()
        self.journal = Journal(self._journal, seal)
        for fields in received:
            self.journal.append("received", **fields)
        self.config, self.num_clients = prepared.config, prepared.plan.num_clients
        self._plan = fingerprint(prepared.dataset, prepared.plan)
        self.pretrained = Tokens.of(self.config.own).pretrained_digest()
        with explained(self.key):
            self._public_key = public_key(self.key.read_bytes())
        content: dict[str, Any] = {
            "format": FORMAT,
            "clients": self.num_clients,
            "plan": self._plan,
            "pretrained": self.pretrained,
            "public-key": self._public_key,
            "config": self.config.as_mapping(),
        }
        # An edit of the file would change who holds what: its checksum shows it.
        content["sha256"] = checksum(content)
        with explained(self._run):
            write_durably(self._run, tomli_w.dumps(content).encode())

    def check_same(self, config: RunConfig) -> None:
        """Refuse another config than this state was made with.

        Raises
        ------
        UserError
            With the first key that differs.
        """
        assert self.config is not None
        trained = self.config.as_mapping()
        for key, value in config.as_mapping().items():
            if key not in _MAY_DIFFER and value != trained[key]:
                allowed = f"{trained[key]!r}, with which {self.path} was trained; or another folder"
                raise refuse(key, value, allowed)

    def deal(self) -> Preparation:
        """Return what is kept of the plan: who holds which samples of what data.

        Raises
        ------
        StateError
            If the data, or the pretrained network, is not what it was: nothing exact could follow.
        """
        assert self.config is not None
        tokens = Tokens.of(self.config.own)
        if tokens.pretrained_digest() != self.pretrained:
            raise StateError(
                f"pretrained={tokens.pretrained!r} is not what {self.path} was trained with: "
                "its weights, how it computes or the tokenizer's vocabulary have changed"
            )
        dataset, plan = deal(self.config, self.num_clients)
        if fingerprint(dataset, plan) != self._plan:
            words = ", the tokens of their words" if self.pretrained else ""
            raise StateError(
                f"dataset={dataset.name!r} is not what {self.path} was trained on: its "
                f"samples, their labels{words} or who holds them have changed"
            )
        return Preparation(self.config, dataset, plan)

    def phases(self) -> tuple[Phase, ...]:
        """Return the phases of ``result.json``; none if there is none yet."""
        path = self.path / "result.json"
        with explained(path):
            try:
                return Result.read(path).phases if path.exists() else ()
            except ValueError as error:
                raise StateError(str(error)) from error

    def write_result(self, result: Result) -> None:
        """Write ``result.json``, for its owner only, whole or not at all."""
        path = self.path / "result.json"
        with explained(path):
            write_durably(path, result.to_json().encode())


def client_folder(state_dir: str, client: int, key_dir: str) -> StateFolder:
    """Return the folder that a client alone reads and writes."""
    path = Path(state_dir) / "clients" / str(client)
    seal = Seal(_key_file(key_dir, f"client-{client}"))
    return StateFolder(path, f"client {client}", seal)


def _key_file(key_dir: str, owner: str) -> Path | None:
    """Return the file of an owner's key; None where there is no folder of keys."""
    return Path(key_dir) / f"{owner}.key" if key_dir else None


def open_state(path: str, key_dir: str = "") -> StateDir:
    """Return a state-dir that holds a state.

    Raises
    ------
    UserError
        If it does not.
    """
    state = StateDir(Path(path), key_dir)
    if state.config is None:
        allowed = "a folder that a run with state-dir has made"
        raise UserError(f"{path} holds no state; allowed: {allowed}")
    return state
