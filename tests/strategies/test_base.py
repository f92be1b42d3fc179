"""How a script is stepped through by Flower's four methods."""

import numpy as np
import pytest
from flwr.common import (
    Code,
    EvaluateRes,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy

from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.base import SplitStrategy, StrategySetting
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.strategies.script import Question
from split_unlearning.strategies.server.scoring import Scoring
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.transport.message import Message
from split_unlearning.unlearning.methods import Retrain

OK = Status(Code.OK, "")
NOTHING = Parameters([], "")


class Server:
    """Notes what it is handed."""

    def __init__(self):
        self.calls = []

    def call(self, method, *arguments):
        if method is Scoring.predict:
            (client,) = arguments
            self.calls.append(("predict", client))
            return np.array([client, 7])
        assert method in (Shards.add, Scoring.add)
        split = ("train",) if method is Shards.add else ()
        self.calls.append(
            (*split, *(one.tolist() if isinstance(one, np.ndarray) else one for one in arguments))
        )
        return None


class Proxy(ClientProxy):
    """A name; the tests answer for it."""

    get_properties = get_parameters = fit = evaluate = reconnect = lambda *_: None


class Toy(SplitStrategy):
    """Answers nothing of its own: the tests write the scripts."""

    client = "package.module:Client"

    def learn(self):
        yield self.ask(self.clients, "work")

    def unlearn(self, requests):
        yield self.ask_to_forget(requests, "forget")


@pytest.fixture
def manager():
    found = SimpleClientManager()
    for client in (2, 0, 1):
        found.register(Proxy(str(client)))
    return found


@pytest.fixture
def strategy():
    return Toy(
        StrategySetting(
            clients=[0, 1, 2],
            server=Server(),
            training=TrainingSettings(),
            method=Retrain({}),
        )
    )


def asked(strategy, manager, kind="fit"):
    """Return what Flower is told to send, by client."""
    configure = getattr(strategy, f"configure_{kind}")
    instructions = configure(server_round=1, parameters=NOTHING, client_manager=manager)
    messages = [
        (int(proxy.cid), Message.unpack(parameters_to_ndarrays(ins.parameters), ins.config))
        for proxy, ins in instructions
    ]
    assert len(dict(messages)) == len(messages)
    return dict(messages)


def answer(strategy, replies, kind="fit", failures=()):
    """Hand the strategy one message a client, in the order given."""
    results = []
    for client, message in replies.items():
        arrays, metrics = message.pack()
        result = (
            FitRes(OK, ndarrays_to_parameters(arrays), 1, metrics)
            if kind == "fit"
            else EvaluateRes(OK, 0.0, 1, metrics)
        )
        results.append((Proxy(str(client)), result))
    aggregate = getattr(strategy, f"aggregate_{kind}")
    returned = aggregate(server_round=1, results=results, failures=list(failures))
    assert returned == (None, {})


def done(**fields):
    return Message("done", {name.replace("_", "-"): value for name, value in fields.items()})


def test_a_fit_question_is_asked_of_whom_it_names_with_who_and_in_which_phase(strategy, manager):
    tensor = np.arange(3, dtype=np.float32)

    def script():
        yield Question(
            {2: Message("b", {"epoch": 4}, {"weights": tensor}), 0: Message("a", {"share": 0.5})}
        )

    strategy.begin(script(), "learn")
    sent = asked(strategy, manager)
    assert sent[0] == Message("a", {"share": 0.5, "client": 0, "phase": "learn"})
    assert (sent[2].action, sent[2].fields) == ("b", {"epoch": 4, "client": 2, "phase": "learn"})
    assert sent[2].tensors["weights"].tolist() == tensor.tolist()
    assert set(sent) == {0, 2}
    # Asking again is asking the same: only an answer moves a script on.
    assert set(asked(strategy, manager)) == {0, 2}


@pytest.mark.parametrize(("kind", "other"), [("fit", "evaluate"), ("evaluate", "fit")])
def test_each_configure_method_asks_questions_of_its_kind_alone(strategy, manager, kind, other):
    def script():
        yield Question({1: Message("work")}, kind=kind)

    strategy.begin(script(), "learn")
    assert asked(strategy, manager, other) == {}
    assert set(asked(strategy, manager, kind)) == {1}


def test_nobody_is_asked_before_a_script_begins_or_after_it_has_ended(strategy, manager):
    assert strategy.question is None
    assert asked(strategy, manager) == asked(strategy, manager, "evaluate") == {}
    strategy.begin(strategy.learn(), "learn")
    assert strategy.question is not None
    answer(strategy, dict.fromkeys((0, 1, 2), done()))
    assert strategy.question is None
    assert asked(strategy, manager) == asked(strategy, manager, "evaluate") == {}


def test_ask_names_fields_with_dashes_and_gives_each_client_its_own(strategy):
    question = strategy.ask(iter([2, 0]), "leave-out", hand_on=True, epoch=3)
    assert question.kind == "fit"
    assert question.messages == dict.fromkeys(
        (2, 0), Message("leave-out", {"hand-on": True, "epoch": 3})
    )
    question.messages[2].fields["epoch"] = 4
    assert question.messages[0].fields["epoch"] == 3


@pytest.mark.parametrize("kind", ["fit", "evaluate"])
def test_replies_are_sorted_by_client_whatever_order_they_come_in(strategy, kind):
    seen = []

    def script():
        seen.append((yield Question(dict.fromkeys((0, 1, 2), Message("work")), kind=kind)))

    strategy.begin(script(), "learn")
    answer(strategy, {client: done(n=client * 10) for client in (1, 2, 0)}, kind)
    (replies,) = seen
    assert [(reply.client, reply.message.fields["n"]) for reply in replies] == [
        (0, 0),
        (1, 10),
        (2, 20),
    ]


def test_clients_are_sorted_as_numbers(strategy):
    seen = []

    def script():
        seen.extend((yield strategy.ask([9, 10], "work")))

    strategy.begin(script(), "learn")
    answer(strategy, {10: done(), 9: done()})
    assert [reply.client for reply in seen] == [9, 10]


def test_tensors_of_an_answer_reach_the_script(strategy):
    seen = []

    def script():
        seen.extend((yield strategy.ask([0], "work")))

    strategy.begin(script(), "learn")
    answer(strategy, {0: Message("done", {}, {"a": np.array([1, 2]), "b": np.array([[0.5]])})})
    assert {name: array.tolist() for name, array in seen[0].message.tensors.items()} == {
        "a": [1, 2],
        "b": [[0.5]],
    }


def test_questions_to_nobody_are_skipped_and_sent_no_replies(strategy, manager):
    sent = []

    def script():
        sent.append((yield strategy.ask([], "first")))
        sent.append((yield Question({}, kind="evaluate")))
        sent.append((yield strategy.ask([1], "second")))
        sent.append((yield strategy.ask([], "third")))

    strategy.begin(script(), "learn")
    assert sent == [[], []]
    assert asked(strategy, manager)[1].action == "second"
    answer(strategy, {1: done()})
    assert [len(replies) for replies in sent] == [0, 0, 1, 0]
    assert strategy.question is None


def test_a_script_that_asks_nobody_ends_at_once(strategy):
    def script():
        yield strategy.ask([], "work")

    for empty in (script(), iter_nothing()):
        strategy.begin(empty, "learn")
        assert strategy.question is None


def iter_nothing():
    yield from ()


def test_a_script_may_ask_in_both_ways(strategy, manager):
    def script():
        yield strategy.ask([0], "one")
        yield Question({1: Message("two")}, kind="evaluate")
        yield strategy.ask([2], "three")

    strategy.begin(script(), "learn")
    heard = []
    while strategy.question is not None:
        kind = strategy.question.kind
        sent = asked(strategy, manager, kind)
        heard += [(kind, client, message.action) for client, message in sent.items()]
        answer(strategy, dict.fromkeys(sent, done()), kind)
    assert heard == [("fit", 0, "one"), ("evaluate", 1, "two"), ("fit", 2, "three")]


def upload(client, chunk, chunks, what="train"):
    tensors = {"smashed": np.array([[client, chunk]], dtype=np.float32)}
    if what == "train":
        tensors |= {"labels": np.array([client]), "ids": np.array([chunk])}
    return Message("upload", {"upload": what, "chunk": chunk, "chunks": chunks}, tensors)


@pytest.mark.parametrize("what", ["train", "test"])
def test_collect_goes_on_asking_exactly_those_who_have_more(strategy, manager, what):
    chunks = {0: 1, 1: 3, 2: 2}
    rounds = []

    def script():
        yield from strategy.collect(strategy.ask([0, 1, 2], "pretrain", upload=what))

    strategy.begin(script(), "learn")
    while strategy.question is not None:
        sent = asked(strategy, manager)
        chunk = len(rounds)
        if chunk:
            wanted = {"upload": what, "chunk": chunk, "phase": "learn"}
            for client, message in sent.items():
                assert message == Message("upload", {**wanted, "client": client})
        rounds.append(sorted(sent))
        answer(strategy, {c: upload(c, chunk, chunks[c], what) for c in sorted(sent, reverse=True)})
    assert rounds == [[0, 1, 2], [1, 2], [1]]
    calls = strategy.server.calls
    assert [call[1:3] for call in calls] == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (1, 2)]
    for name, client, chunk, *tensors in calls:
        assert name == what
        expected = [[[client, chunk]], [client], [chunk]]
        assert tensors == (expected if what == "train" else expected[:1])


def test_collect_hands_each_chunk_on_as_it_arrives(strategy):
    def script():
        yield from strategy.collect(strategy.ask([0], "pretrain"))

    strategy.begin(script(), "learn")
    assert strategy.server.calls == []
    answer(strategy, {0: upload(0, 0, 2)})
    assert len(strategy.server.calls) == 1
    answer(strategy, {0: upload(0, 1, 2)})
    assert len(strategy.server.calls) == 2
    assert strategy.question is None


def test_collecting_from_nobody_goes_on(strategy):
    reached = []

    def script():
        yield from strategy.collect(strategy.ask([], "pretrain"))
        reached.append(True)

    strategy.begin(script(), "learn")
    assert reached == [True]
    assert strategy.server.calls == []


@pytest.mark.parametrize("kind", ["fit", "evaluate"])
def test_a_failure_is_raised_and_the_script_goes_no_further(strategy, kind):
    reached = []

    def script():
        yield Question(dict.fromkeys((0, 1), Message("work")), kind=kind)
        reached.append(True)

    strategy.begin(script(), "learn")
    failures = [ConnectionError("client 1 is gone"), ClientFailureError("client 2, too")]
    with pytest.raises(ClientFailureError, match="client 1 is gone; client 2, too"):
        answer(strategy, {0: done(digest="d")}, kind, failures)
    assert reached == []
    # What the others answered is not taken down as if all had.
    assert strategy.client_digests == {}


def test_digests_seconds_and_batches_are_taken_from_the_fields(strategy):
    def script():
        for _ in range(2):
            yield strategy.ask([0, 1, 2], "work")

    strategy.begin(script(), "learn")
    first = {
        0: done(digest="old", seconds=1.5, batches=3, batch_seconds=0.5),
        1: done(seconds=2),
        2: done(digest="kept"),
    }
    second = {
        0: done(digest="new", seconds=0.25, batches=2, batch_seconds=0.25),
        1: done(left_out=7),
        2: done(seconds=4.0),
    }
    for replies in (first, second):
        answer(strategy, replies)
    assert strategy.client_digests == {0: "new", 2: "kept"}
    assert strategy.heard.left_out == {1: 7}
    assert (strategy.heard.batches, strategy.heard.batch_seconds) == (5, 0.75)


def test_a_new_script_starts_clocks_again_and_keeps_digests(strategy, manager):
    def script():
        yield strategy.ask([1], "work")

    strategy.begin(script(), "learn")
    answer(strategy, {1: done(digest="d", left_out=3, batches=3, batch_seconds=0.5)})
    strategy.begin(script(), "unlearn")
    assert (strategy.heard.left_out, strategy.heard.batches, strategy.heard.batch_seconds) == (
        {},
        0,
        0.0,
    )
    assert strategy.client_digests == {1: "d"}
    assert asked(strategy, manager)[1].fields["phase"] == "unlearn"


def scored(strategy, digests):
    """Learn, so that clients have these digests, and let all upload and be scored once."""

    def script():
        yield strategy.ask(digests, "work")

    strategy.begin(script(), "learn")
    answer(strategy, {client: done(digest=digest) for client, digest in digests.items()})
    strategy.begin(strategy.score(list(digests)), "evaluate")
    answer(strategy, {client: upload(client, 0, 1, "test") for client in digests})
    answer(strategy, {client: done(correct="[1]") for client in digests}, "evaluate")
    strategy.server.calls.clear()


def test_score_uploads_predicts_for_who_is_there_and_keeps_the_counts(strategy, manager):
    scored(strategy, {0: "a", 1: "b", 2: "c"})
    strategy.client_digests |= {1: "new", 2: "new"}
    strategy.begin(strategy.score(present=[0, 2]), "evaluate")
    sent = asked(strategy, manager)
    assert sent == {
        2: Message("upload", {"upload": "test", "chunk": 0, "client": 2, "phase": "evaluate"})
    }
    answer(strategy, {2: upload(2, 0, 1, "test")})
    assert strategy.server.calls == [
        ("test", 2, 0, [[2.0, 0.0]]),
        ("predict", 0),
        ("predict", 2),
    ]
    sent = asked(strategy, manager, "evaluate")
    assert {c: m.tensors["predictions"].tolist() for c, m in sent.items()} == {
        0: [0, 7],
        2: [2, 7],
    }
    assert {message.action for message in sent.values()} == {"score"}
    answer(strategy, {2: done(correct="[1]"), 0: done(correct="[0]")}, "evaluate")
    assert strategy.question is None
    assert {client: m.fields["correct"] for client, m in strategy.scores.items()} == {
        0: "[0]",
        2: "[1]",
    }


def test_score_asks_every_client_unless_told_who_is_there(strategy, manager):
    scored(strategy, {0: "a", 1: "b", 2: "c"})
    strategy.begin(strategy.score(), "evaluate")
    assert set(asked(strategy, manager, "evaluate")) == {0, 1, 2}


def test_who_was_away_uploads_when_it_is_back(strategy, manager):
    scored(strategy, {0: "a", 1: "b"})
    strategy.client_digests |= {0: "new", 1: "new"}
    strategy.begin(strategy.score(present=[0]), "evaluate")
    answer(strategy, {0: upload(0, 0, 1, "test")})
    answer(strategy, {0: done(correct="[1]")}, "evaluate")
    strategy.begin(strategy.score(present=[0, 1]), "evaluate")
    assert list(asked(strategy, manager)) == [1]


def test_a_new_score_forgets_the_old_one(strategy):
    scored(strategy, {0: "a", 1: "b"})
    strategy.begin(strategy.score(present=[1]), "evaluate")
    answer(strategy, {1: done(correct="[2]")}, "evaluate")
    assert set(strategy.scores) == {1}


def test_flower_is_given_no_parameters_and_no_central_evaluation(strategy, manager):
    assert strategy.initialize_parameters(manager) is None
    assert strategy.evaluate(0, NOTHING) is None


def test_an_error_in_a_script_comes_out_where_its_answers_go_in(strategy):
    def script():
        yield strategy.ask([0], "work")
        raise ArithmeticError("in the script")

    strategy.begin(script(), "learn")
    with pytest.raises(ArithmeticError, match="in the script"):
        answer(strategy, {0: done()})
