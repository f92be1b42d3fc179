"""All that a strategy, a client or an unlearning method of your own imports.

A strategy is a subclass of `SplitStrategy` whose ``client`` names a subclass of `SplitClient`; an
unlearning method a subclass of `StagedMethod`, whose stages pursue an `Objective`. Name them in the
run config as ``strategy='package.module:Class'`` and ``unlearning='package.module:Class'``.
"""

from split_unlearning.clients.acting import action
from split_unlearning.clients.base import SplitClient
from split_unlearning.clients.holding import Holding
from split_unlearning.clients.setting import ClientSetting
from split_unlearning.clients.splitwiper import SplitWiperClient
from split_unlearning.clients.ushaped import UShapedClient
from split_unlearning.clients.vanilla import VanillaClient
from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import Option, Options
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.network import Network
from split_unlearning.models.training import TrainingSettings, train_batch
from split_unlearning.strategies.base import SplitStrategy, StrategySetting
from split_unlearning.strategies.script import Question, Reply, Script
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.part import Parts, ServerPart, frame
from split_unlearning.strategies.server.scoring import Scoring
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.strategies.splitfed import SplitFed
from split_unlearning.strategies.splitwiper import SplitWiper
from split_unlearning.strategies.ushaped import UShaped
from split_unlearning.strategies.vanilla import Vanilla
from split_unlearning.transport.link import Endpoint, Link
from split_unlearning.transport.message import Message
from split_unlearning.transport.socket_link import connect
from split_unlearning.unlearning.exactness import batches, order
from split_unlearning.unlearning.methods import (
    FineTuning,
    Retrain,
    StagedMethod,
    UnlearningMethod,
)
from split_unlearning.unlearning.objectives import Batch, CrossEntropy, LogitsOf, Objective
from split_unlearning.unlearning.request import Request
from split_unlearning.unlearning.stages import Stage
from split_unlearning.unlearning.tensor_store import TensorStore

__all__ = [
    "Batch",
    "ClientSetting",
    "CrossEntropy",
    "Endpoint",
    "FineTuning",
    "Holding",
    "Link",
    "LogitsOf",
    "Message",
    "Network",
    "Objective",
    "Option",
    "Options",
    "Parts",
    "Question",
    "Reply",
    "Request",
    "Retrain",
    "Scoring",
    "Script",
    "ServerLink",
    "ServerModel",
    "ServerPart",
    "Shards",
    "SplitClient",
    "SplitFed",
    "SplitStrategy",
    "SplitWiper",
    "SplitWiperClient",
    "Stage",
    "StagedMethod",
    "StrategySetting",
    "TensorStore",
    "TrainingSettings",
    "UShaped",
    "UShapedClient",
    "UnlearningMethod",
    "UserError",
    "Vanilla",
    "VanillaClient",
    "action",
    "batches",
    "connect",
    "derive_seed",
    "frame",
    "order",
    "refuse",
    "train_batch",
]
