"""The door for plug-ins: all that a strategy or a client of your own imports.

Write a strategy as a subclass of `SplitStrategy` whose ``client`` names a subclass of
`SplitClient`, and name it in the run config as ``strategy='package.module:Class'``.
"""

from clients.base import ClientSetting, Holding, SplitClient, action
from clients.state import ClientState
from models.errors import UserError
from models.split import Network
from models.training import TrainingSettings, train_batch
from strategies.base import SplitStrategy, StrategySetting
from strategies.script import Question, Reply, Script
from transport.grpc_link import connect
from transport.link import Endpoint, Link
from transport.message import Message
from unlearning.exactness import batches, derive_seed, order
from unlearning.request import Request

__all__ = [
    "ClientSetting",
    "ClientState",
    "Endpoint",
    "Holding",
    "Link",
    "Message",
    "Network",
    "Question",
    "Reply",
    "Request",
    "Script",
    "SplitClient",
    "SplitStrategy",
    "StrategySetting",
    "TrainingSettings",
    "UserError",
    "action",
    "batches",
    "connect",
    "derive_seed",
    "order",
    "train_batch",
]
