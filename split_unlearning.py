"""The door for plug-ins: all that a strategy, a client or an unlearning method of your own imports.

A strategy is a subclass of `SplitStrategy` whose ``client`` names a subclass of `SplitClient`; an
unlearning method a subclass of `StagedMethod`, whose stages pursue an `Objective`. Name them in the
run config as ``strategy='package.module:Class'`` and ``unlearning='package.module:Class'``.
"""

from clients.acting import action
from clients.base import SplitClient
from clients.holding import Holding
from clients.setting import ClientSetting
from clients.splitwiper import SplitWiperClient
from clients.ushaped import UShapedClient
from clients.vanilla import VanillaClient
from models.errors import UserError, refuse
from models.options import Option
from models.split import Network
from models.training import TrainingSettings, train_batch
from strategies.base import SplitStrategy, StrategySetting
from strategies.script import Question, Reply, Script
from strategies.splitfed import SplitFed
from strategies.splitwiper import SplitWiper
from strategies.ushaped import UShaped
from strategies.vanilla import Vanilla
from transport.link import Endpoint, Link
from transport.message import Message
from transport.socket_link import connect
from unlearning.exactness import batches, derive_seed, order
from unlearning.methods import Retrain, StagedMethod, UnlearningMethod, UnlearningSettings
from unlearning.objectives import Batch, CrossEntropy, LogitsOf, Objective
from unlearning.request import Request
from unlearning.stages import Stage
from unlearning.tensor_store import TensorStore

__all__ = [
    "Batch",
    "ClientSetting",
    "CrossEntropy",
    "Endpoint",
    "Holding",
    "Link",
    "LogitsOf",
    "Message",
    "Network",
    "Objective",
    "Option",
    "Question",
    "Reply",
    "Request",
    "Retrain",
    "Script",
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
    "UnlearningSettings",
    "UserError",
    "Vanilla",
    "VanillaClient",
    "action",
    "batches",
    "connect",
    "derive_seed",
    "order",
    "refuse",
    "train_batch",
]
