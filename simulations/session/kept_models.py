"""The models of a run's phases as files: every segment, and what else a client's model needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from split_unlearning.foundations.files import write_whole
from split_unlearning.transport.message import Message

_SERVER, _LABELS = "server/", "labels"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class KeptModel:
    """The model of one phase.

    `server` has the weights of the server segment, which tells so many `labels` apart; `clients`,
    by client, each group of tensors that its model needs, by the name in the client's state.
    """

    server: Tensors
    labels: int
    clients: Mapping[int, Mapping[str, Tensors]]

    @classmethod
    def of(cls, server: Tensors, labels: int, answers: Mapping[int, Message]) -> KeptModel:
        """Return a model from what clients answered to ``tell-model``."""
        clients: dict[int, dict[str, Tensors]] = {}
        for client, message in answers.items():
            groups = clients.setdefault(client, {})
            for name, array in message.tensors.items():
                group, _, rest = name.partition("/")
                groups.setdefault(group, {})[rest] = torch.tensor(array)
        return cls(server, labels, clients)

    def write(self, folder: Path, task: int) -> None:
        """Write the model of a task to a folder, whole or not at all."""
        named = {f"{_SERVER}{name}": value for name, value in self.server.items()}
        for client, groups in self.clients.items():
            for group, tensors in groups.items():
                named |= {f"{client}/{group}/{name}": value for name, value in tensors.items()}
        path = _path(folder, task)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save({**named, _LABELS: torch.tensor(self.labels)}))

    @classmethod
    def read(cls, folder: Path, task: int) -> KeptModel:
        """Read the model of a task from a folder.

        Raises
        ------
        OSError
            If it holds none.
        """
        named = load_file(_path(folder, task))
        labels = int(named.pop(_LABELS))
        server: Tensors = {}
        clients: dict[int, dict[str, Tensors]] = {}
        for name, value in named.items():
            if name.startswith(_SERVER):
                server[name.removeprefix(_SERVER)] = value
                continue
            client, group, rest = name.split("/", 2)
            clients.setdefault(int(client), {}).setdefault(group, {})[rest] = value
        return cls(server, labels, clients)


def _path(folder: Path, task: int) -> Path:
    return folder / f"{task}.safetensors"
