"""What a message says beside its content where one Flower run carries out several of ours.

Flower gives each run one run config and one number of nodes, and lets a node's state live as long
as the run. A cell of a benchmark has its own of all three: its messages name the cell, its run
config and its number of clients, and the ClientApp acts as if Flower had said so. No ledger counts
an envelope: the same run on its own sends none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from split_unlearning.foundations.options import Value

_RECORD = "split-unlearning.cell"


@dataclass(frozen=True)
class Envelope:
    """Says to which of several runs a message belongs: a name that no other run has.

    So many `clients` take part, the first of the nodes. `settings` are the whole run config.
    """

    name: str
    clients: int
    settings: Mapping[str, Value]

    def enclose(self, content: RecordDict) -> None:
        """Add itself to the content of a message."""
        settings = json.dumps(dict(self.settings))
        content.config_records[_RECORD] = ConfigRecord(
            {"name": self.name, "clients": self.clients, "settings": settings}
        )


def open_envelope(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Act as a node of the run that the message belongs to; a mod of the ClientApp.

    What the node kept in another run is forgotten.
    """
    if not message.has_content() or _RECORD not in message.content.config_records:
        return call_next(message, context)
    enclosed = message.content.config_records[_RECORD]
    state = context.state.config_records
    if _RECORD not in state or state[_RECORD]["name"] != enclosed["name"]:
        state.clear()
        state[_RECORD] = ConfigRecord({"name": enclosed["name"]})
    own = Context(
        run_id=context.run_id,
        node_id=context.node_id,
        node_config={**context.node_config, "num-partitions": int(str(enclosed["clients"]))},
        state=context.state,
        run_config=json.loads(str(enclosed["settings"])),
    )
    return call_next(message, own)
