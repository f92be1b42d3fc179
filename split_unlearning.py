"""The door for plug-ins: all that a strategy, a client or an unlearning method of your own imports.

A strategy is a subclass of `SplitStrategy` whose ``client`` names a subclass of `SplitClient`; an
unlearning method a subclass of `StagedMethod`, whose stages pursue an `Objective`. Name them in the
run config as ``strategy='package.module:Class'`` and ``unlearning='package.module:Class'``.
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
from unlearning.methods import Retrain, StagedMethod, UnlearningMethod, UnlearningSettings
from unlearning.objectives import Batch, CrossEntropy, Objective
from unlearning.request import Request
from unlearning.stages import Stage

__all__ = [
    "Batch",
    "ClientSetting",
    "ClientState",
    "CrossEntropy",
    "Endpoint",
    "Holding",
    "Link",
    "Message",
    "Network",
    "Objective",
    "Question",
    "Reply",
    "Request",
    "Retrain",
    "Script",
    "SplitClient",
    "SplitStrategy",
    "Stage",
    "StagedMethod",
    "StrategySetting",
    "TrainingSettings",
    "UnlearningMethod",
    "UnlearningSettings",
    "UserError",
    "action",
    "batches",
    "connect",
    "derive_seed",
    "order",
    "train_batch",
]
