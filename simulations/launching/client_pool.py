"""Whether Flower's clients fit on the machine or the cluster: checked before anything starts.

Flower counts how many of them the CPUs and the GPUs of each node have room for, starts so many
processes and waits for each of them. Ray reserves a share of *one* GPU, never parts of two. Where
their counts differ, a client would wait for a process that never starts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from split_unlearning.foundations.errors import refuse

Node = tuple[float, float]
"""The CPUs and the GPUs of a machine."""


def check_client_count(clients: int) -> None:
    """Refuse what is no number of clients.

    Raises
    ------
    UserError
        With what is allowed.
    """
    if type(clients) is not int or clients < 1:
        raise refuse("--clients", clients, "an integer >= 1")


def check_client_gpus(client_gpus: float) -> None:
    """Refuse what is no number of GPUs, or of parts of one.

    Raises
    ------
    UserError
        With what is allowed.
    """
    is_number = isinstance(client_gpus, int | float)
    if not is_number or not (0 <= client_gpus <= 1 or (client_gpus > 1 and client_gpus % 1 == 0)):
        raise refuse("--client-gpus", client_gpus, "0 <= x <= 1, or a whole number of GPUs")


def check_client_pool(clients: int, client_cpus: int, client_gpus: float) -> None:
    """Refuse numbers of clients, and of what each of them reserves, that cannot be.

    Raises
    ------
    UserError
        With what there is: of this machine, or of the nodes of the cluster at ``RAY_ADDRESS``.
    """
    check_client_count(clients)
    # Flower divides by the CPUs of a client, a whole number.
    if type(client_cpus) is not int or client_cpus < 1:
        raise refuse("--client-cpus", client_cpus, "an integer >= 1")
    check_client_gpus(client_gpus)
    if address := os.environ.get("RAY_ADDRESS"):
        from split_unlearning.strategies.server.placement import nodes_at

        check_fits(nodes_at(address), client_cpus, client_gpus, "a node of this cluster")
    else:
        import torch

        here = (float(os.cpu_count() or 1), float(torch.cuda.device_count()))
        check_fits([here], client_cpus, client_gpus, "this machine")


def check_fits(nodes: Sequence[Node], client_cpus: int, client_gpus: float, where: str) -> None:
    """Refuse what a client reserves if no node has it, or Flower and Ray count differently.

    `where` is what the refusal calls a node.
    """
    most_cpus = max((cpus for cpus, _ in nodes), default=0.0)
    most_gpus = max((gpus for _, gpus in nodes), default=0.0)
    if client_cpus > most_cpus:
        raise refuse("--client-cpus", client_cpus, f"at most {most_cpus:g}, what {where} has")
    if client_gpus > most_gpus:
        raise refuse("--client-gpus", client_gpus, f"at most {most_gpus:g}, what {where} has")
    counts = [clients_of(node, client_cpus, client_gpus) for node in nodes]
    if not any(expected for expected, _ in counts):
        raise refuse(
            "--client-gpus", client_gpus, f"what {where} has beside --client-cpus={client_cpus}"
        )
    for (_, gpus), (expected, possible) in zip(nodes, counts, strict=True):
        if expected > possible:
            allowed = (
                f"a share that divides a GPU, such as {1 / (int(1 / client_gpus) + 1):.3g} or "
                f"{1 / int(1 / client_gpus):.3g}: of {gpus:g} GPUs Flower would give it to "
                f"{expected} clients, and Ray can to {possible}"
            )
            raise refuse("--client-gpus", client_gpus, allowed)


def clients_of(node: Node, client_cpus: int, client_gpus: float) -> tuple[int, int]:
    """Return for how many clients at a time Flower starts processes on a node, and Ray has room.

    The first is what Flower's ``pool_size_from_resources`` gives.
    """
    cpus, gpus = node
    by_cpus = int(cpus / client_cpus)
    if not client_gpus:
        return by_cpus, by_cpus
    on_one = int(1 / client_gpus)
    on_gpus = on_one * int(gpus) if on_one else int(gpus / client_gpus)
    return min(by_cpus, int(gpus / client_gpus)), min(by_cpus, on_gpus)
