"""Both links give the same replies, counts and errors."""

import threading
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from split_unlearning.transport.frame import FrameError, decode, encode
from split_unlearning.transport.ledger import Account, Ledger
from split_unlearning.transport.link import Endpoint, LinkError
from split_unlearning.transport.socket_link import LinkServer, connect
from tests.transport.foreign import LIMIT, TIMEOUT, Foreign, double, sent, still_serves
from tests.transport.loopback import LoopbackLink


@pytest.fixture(params=["loopback", "socket", "tls"])
def opened(request):
    """A function that opens a link of each kind, and ends what it opened."""
    ends = []

    def open_link(handler, ledger, client=0, phase="learn", limit=LIMIT):
        if request.param == "loopback":
            link = LoopbackLink(handler, ledger, client, phase, max_frame_bytes=limit)
        else:
            tls = request.param == "tls"
            server = LinkServer(handler, ledger, max_frame_bytes=limit, tls=tls)
            ends.append(server.stop)
            link = connect(server.endpoint.of(client), client, phase)
        ends.append(link.close)
        return link

    yield open_link
    for end in reversed(ends):
        end()


def test_replies_and_counts_are_those_of_the_frames(opened):
    ledger, sizes = Ledger(), []
    link = opened(double, ledger, client=4, phase="unlearn")
    for turn in range(5):
        asked, fields = {"x": torch.randn(turn, 3), "y": torch.tensor(turn)}, {"turn": str(turn)}
        tensors, said = link.exchange(asked, fields)
        assert said == {**fields, "caller": "4 unlearn"}
        assert torch.equal(tensors["x"], asked["x"] * 2)
        assert tensors["y"] == turn * 2
        sizes.append((len(encode(asked, fields)), len(encode(tensors, said))))
    up, down = (sum(side) for side in zip(*sizes, strict=True))
    assert ledger.rows() == [(4, "unlearn", Account(up, down, 5))]


def test_ledger_equals_the_bytes_a_foreign_client_sent_and_received():
    ledger = Ledger()
    frames = [sent({"x": torch.randn(size)}) for size in (0, 1, 100)]
    with LinkServer(double, ledger) as server, Foreign(server.endpoint) as foreign:
        replies = foreign.replies(*frames)
    up, down = sum(map(len, frames)), sum(map(len, replies))
    assert ledger.account(0, "learn") == Account(up, down, len(frames))
    assert torch.equal(decode(replies[2]).tensors["x"], decode(frames[2]).tensors["x"] * 2)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.lists(st.integers(0, 4), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
    fields=st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3),
)
def test_loopback_and_socket_agree(pair, shape, dtype, fields):
    try:
        encode({}, fields)
    except FrameError:
        return
    asked = {"x": torch.arange(float(torch.Size(shape).numel())).reshape(shape).to(dtype)}
    (tensors, said), (others, others_said) = (link.exchange(asked, fields) for link in pair.links)
    assert torch.equal(tensors["x"], others["x"])
    assert tensors["x"].dtype == others["x"].dtype
    assert said == others_said
    near, far = (ledger.account(0, "learn") for ledger in pair.ledgers)
    assert near == far


@pytest.fixture
def pair():
    class Pair:
        ledgers = (Ledger(), Ledger())

    with (
        LinkServer(double, Pair.ledgers[1]) as server,
        connect(server.endpoint.of(0), 0, "learn") as far,
        LoopbackLink(double, Pair.ledgers[0], 0, "learn") as near,
    ):
        Pair.links = (near, far)
        yield Pair


def test_seconds_waiting_grows_with_each_exchange_only(opened):
    link = opened(double, Ledger())
    assert link.seconds_waiting == 0.0
    link.exchange({})
    once = link.seconds_waiting
    assert once > 0.0
    assert link.seconds_waiting == once
    link.exchange({})
    assert link.seconds_waiting > once


def test_the_handlers_value_error_blames_the_client(opened):
    def refuse(caller, tensors, fields):
        raise ValueError("labels\n  are missing")

    ledger = Ledger()
    link = opened(refuse, ledger)
    with pytest.raises(LinkError, match=r"the server refused: labels are missing$"):
        link.exchange({})
    assert ledger.account(0, "learn") == Account(bytes_up=len(sent({})))


def test_the_handlers_other_errors_are_named(opened, caplog):
    def fail(caller, tensors, fields):
        raise KeyError("optimiser")

    with pytest.raises(LinkError, match=r"the server failed: KeyError: 'optimiser'$"):
        opened(fail, Ledger()).exchange({})
    assert "in fail" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [None, (1, 2), ({"x": 1}, {}), ({}, {"x": 1}), ({"x": torch.zeros(1, device="meta")}, {})],
)
def test_a_reply_that_no_frame_holds_is_the_servers_fault(opened, answer):
    with pytest.raises(LinkError, match="the server failed"):
        opened(lambda *_: answer, Ledger()).exchange({})


def test_an_oversized_request_is_refused_with_both_sizes(opened):
    ledger = Ledger()
    link = opened(double, ledger)
    large = {"x": torch.zeros(LIMIT)}
    with pytest.raises(LinkError, match="the server refused: frame") as refused:
        link.exchange(large)
    assert str(LIMIT) in str(refused.value)
    assert str(len(encode(large))) in str(refused.value)
    assert ledger.rows() == []


def test_an_oversized_reply_is_refused_with_both_sizes(opened):
    link = opened(lambda *_: ({"x": torch.zeros(LIMIT)}, {}), Ledger())
    with pytest.raises(LinkError, match=rf"the server failed: reply .* of {LIMIT}$"):
        link.exchange({})


def test_unknown_phase_is_refused(opened):
    with pytest.raises(LinkError, match="the server refused: unknown phase 'train'"):
        opened(double, Ledger(), phase="train").exchange({})


def test_after_an_error_the_link_is_closed(opened):
    link = opened(double, Ledger())
    with pytest.raises(LinkError):
        link.exchange({"x": torch.zeros(LIMIT)})
    with pytest.raises(LinkError, match="closed"):
        link.exchange({})


def test_what_no_frame_holds_does_not_end_the_link(opened):
    link = opened(double, Ledger())
    with pytest.raises(FrameError):
        link.exchange({"x": torch.zeros(1, device="meta")})
    assert link.exchange({}, {"a": "b"})[1]["a"] == "b"


def test_closing_twice_is_harmless(opened):
    link = opened(double, Ledger())
    link.exchange({})
    link.close()
    link.close()
    with pytest.raises(LinkError, match="closed"):
        link.exchange({})


def test_large_frames_pass(opened):
    large = torch.randn(2**21)
    tensors, _ = opened(double, Ledger(), limit=2**24).exchange({"x": large})
    assert torch.equal(tensors["x"], large * 2)


def test_who_is_refused_while_still_sending_is_told_why(opened):
    link = opened(double, Ledger())
    with pytest.raises(LinkError, match=rf"larger than the limit of {LIMIT}$"):
        link.exchange({"x": torch.zeros(2**24)})


def test_an_interrupted_exchange_closes_the_link(opened, monkeypatch):
    link = opened(double, Ledger())
    link.exchange({})

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(link, "_send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        link.exchange({})
    monkeypatch.undo()
    with pytest.raises(LinkError, match="closed"):
        link.exchange({})


def test_several_streams_at_once():
    ledger, together = Ledger(), threading.Barrier(4)

    def meet(caller, tensors, fields):
        together.wait(TIMEOUT)  # passes only while four handlers run at the same time
        return double(caller, tensors, fields)

    results = {}

    def client(server, number):
        with connect(server.endpoint.of(number), number, "learn") as link:
            results[number] = [
                link.exchange({"x": torch.full((3,), number)})[0]["x"].tolist() for _ in range(5)
            ]

    with LinkServer(meet, ledger) as server:
        threads = [threading.Thread(target=client, args=(server, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {number: [[2 * number] * 3] * 5 for number in range(4)}
    assert [ledger.account(number, "learn").messages for number in range(4)] == [5] * 4


def test_links_beyond_the_bound_wait_for_their_turn():
    answered = threading.Event()

    def wait(server):
        assert still_serves(server)
        answered.set()

    with LinkServer(double, Ledger(), max_links=1) as server:
        for _ in range(3):
            assert still_serves(server)
        first = connect(server.endpoint.of(0), 0, "learn")
        first.exchange({})
        second = threading.Thread(target=wait, args=(server,))
        second.start()
        assert not answered.wait(0.2)
        first.close()
        assert answered.wait(TIMEOUT)
        second.join()


def test_a_thread_goes_on_with_the_next_client():
    threads = set()

    def noted(caller, tensors, fields):
        threads.add(threading.get_ident())
        return double(caller, tensors, fields)

    with LinkServer(noted, Ledger()) as server:
        for _ in range(5):
            assert still_serves(server)
            time.sleep(0.05)  # the thread sees that its client has gone
    assert len(threads) == 1


def test_stop_waits_for_handlers_and_ends_their_links():
    begun, may_end, ended = (threading.Event() for _ in range(3))

    def slow(caller, tensors, fields):
        begun.set()
        may_end.wait(TIMEOUT)
        ended.set()
        return {}, {}

    server = LinkServer(slow, Ledger())
    failed = []

    def ask():
        with connect(server.endpoint.of(0), 0, "learn") as link:
            try:
                link.exchange({})
            except LinkError as error:
                failed.append(error)

    client = threading.Thread(target=ask)
    client.start()
    assert begun.wait(TIMEOUT)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    client.join()
    assert len(failed) == 1
    assert stopping.is_alive()
    may_end.set()
    stopping.join()
    assert ended.is_set()


def test_a_server_that_is_gone_is_an_error():
    server = LinkServer(double, Ledger())
    link = connect(server.endpoint.of(0), 0, "learn")
    link.exchange({})
    server.stop()
    server.stop()
    with pytest.raises(LinkError, match="the link failed") as gone:
        link.exchange({})
    assert "\n" not in str(gone.value)
    with (
        connect(server.endpoint.of(0), 0, "learn") as late,
        pytest.raises(LinkError, match="the server cannot be reached"),
    ):
        late.exchange({})


def test_endpoint_travels_as_fields():
    endpoint = Endpoint("10.0.0.1:5", "secret", "PEM")
    fields = endpoint.to_fields()
    assert fields == {
        "link-target": "10.0.0.1:5",
        "link-token": "secret",
        "link-certificate": "PEM",
    }
    assert Endpoint.from_fields({**fields, "epochs": 3}) == endpoint
    assert "secret" not in repr(endpoint)
    for key in fields:
        for broken in ({**fields, key: 1}, {k: v for k, v in fields.items() if k != key}):
            with pytest.raises(ValueError, match=key):
                Endpoint.from_fields(broken)
