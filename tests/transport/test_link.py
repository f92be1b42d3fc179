"""Both links give the same replies, counts and errors, and strangers get nowhere."""

import contextlib
import ipaddress
import json
import select
import socket
import threading
import time
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from split_unlearning.transport import link as link_module
from split_unlearning.transport import socket_link
from split_unlearning.transport.frame import Frame, FrameError, decode, encode
from split_unlearning.transport.ledger import Account, Ledger
from split_unlearning.transport.link import Endpoint, LinkError
from split_unlearning.transport.socket_link import LinkServer, connect
from tests.transport.loopback import LoopbackLink

LIMIT = 4096
TIMEOUT = 30.0


def double(caller, tensors, fields):
    """A server that computes and says who asked."""
    return {name: tensor * 2 for name, tensor in tensors.items()}, {
        **fields,
        "caller": f"{caller.client} {caller.phase}",
    }


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = set(threading.enumerate())
    yield
    patience = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not left


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


class Foreign:
    """A client that sends whatever bytes it likes, without our own client's code."""

    def __init__(self, endpoint, **changed):
        host, port = endpoint.target.split(":")
        self.connection = socket.create_connection((host, int(port)), timeout=TIMEOUT)
        hello = {"link-token": endpoint.of(0).token, "link-client": "0", "link-phase": "learn"}
        hello |= {f"link-{key}": value for key, value in changed.items()}
        said = {key: value for key, value in hello.items() if value is not None}
        self.connection.sendall(safetensors.torch.save({}, said))

    def replies(self, *frames):
        """Send frames, and return those that come back until the server ends the link."""
        for sent in frames:
            self.connection.sendall(sent)
        self.connection.shutdown(socket.SHUT_WR)
        stream, replies = self.connection.makefile("rb"), []
        with stream:
            while len(stream.peek()):
                header = stream.read(int.from_bytes(start := stream.read(8), "little"))
                ends = [one["data_offsets"][1] for one in tensors_in(header).values()]
                replies.append(start + header + stream.read(max(ends, default=0)))
        return replies

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


def tensors_in(header):
    return {name: one for name, one in json.loads(header).items() if name != "__metadata__"}


def refusal(foreign, *frames):
    *_, last = foreign.replies(*frames)
    return decode(last).fields["refusal"]


def sent(tensors, fields=None):
    return bytes(encode(tensors, fields))


def still_serves(server):
    with connect(server.endpoint.of(9), 9, "evaluate") as link:
        return link.exchange({"x": torch.ones(1)})[0]["x"].item() == 2.0


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


@pytest.mark.parametrize("token", [None, "", "wrong", "x" * 43])
def test_without_the_token_no_frame_is_read(token):
    called = []
    ledger = Ledger()
    with LinkServer(lambda *a: called.append(a) or ({}, {}), ledger) as server:
        with Foreign(server.endpoint, token=token) as foreign:
            said = refusal(foreign, sent({}))
        assert said == "the server refused: missing or wrong token for client 0"
        stranger = replace(server.endpoint, token=token or "")
        with (
            connect(stranger, 0, "learn") as link,
            pytest.raises(LinkError, match="wrong token"),
        ):
            link.exchange({})
    assert called == []
    assert ledger.rows() == []


@pytest.mark.parametrize("number", ["1", "-1", "999", "1" * 3000])
def test_a_token_admits_its_own_client_alone(number):
    ledger = Ledger()
    with LinkServer(double, ledger) as server:
        with Foreign(server.endpoint, client=number) as foreign:
            assert "missing or wrong token for client" in refusal(foreign, sent({}))
        with (
            connect(server.endpoint.of(0), 1, "learn") as link,
            pytest.raises(LinkError, match="wrong token for client 1"),
        ):
            link.exchange({})
    assert ledger.rows() == []


def test_many_that_never_say_who_they_are_keep_nobody_out(monkeypatch):
    monkeypatch.setattr(socket_link, "_GREETINGS", 8)
    with LinkServer(double, Ledger()) as server, contextlib.ExitStack() as strangers:
        host, port = server.endpoint.target.split(":")
        for _ in range(40):
            stranger = socket.create_connection((host, int(port)), timeout=TIMEOUT)
            strangers.enter_context(stranger).sendall(b"\0")
        assert still_serves(server)


def test_a_stranger_that_drips_is_closed_at_the_deadline(monkeypatch):
    monkeypatch.setattr(socket_link, "_PATIENCE", 0.3)
    with LinkServer(double, Ledger()) as server:
        host, port = server.endpoint.target.split(":")
        with (
            socket.create_connection((host, int(port)), timeout=TIMEOUT) as stranger,
            contextlib.suppress(ConnectionError),
        ):
            # Each byte alone comes in time; the eight that give a frame's size never do.
            for _ in range(7):
                stranger.sendall(b"\1")
                if select.select([stranger], [], [], 0.2)[0]:
                    return
            pytest.fail("it was not closed")


def test_each_server_has_its_own_token_and_shows_it_nowhere():
    with LinkServer(double, Ledger()) as one, LinkServer(double, Ledger()) as other:
        assert one.endpoint.token != other.endpoint.token
        assert one.endpoint.token not in repr(one.endpoint)
        with (
            connect(replace(one.endpoint, token=other.endpoint.token), 0, "learn") as link,
            pytest.raises(LinkError, match="wrong token"),
        ):
            link.exchange({})


@pytest.mark.parametrize("changed", [{"client": None}, {"client": "one"}, {"phase": None}])
def test_who_opens_a_link_must_say_who_it_is(changed):
    with LinkServer(double, Ledger()) as server, Foreign(server.endpoint, **changed) as foreign:
        assert refusal(foreign, sent({})).endswith("names no client and phase")


@pytest.mark.parametrize(
    "bad",
    [b"garbage", sent({"x": torch.ones(4)})[:-1], bytes(LIMIT), sent({"x": torch.ones(LIMIT)})],
)
def test_bad_frames_end_their_link_and_no_other(bad):
    ledger = Ledger()
    with (
        LinkServer(double, ledger, max_frame_bytes=LIMIT) as server,
        connect(server.endpoint.of(1), 1, "learn") as bystander,
    ):
        bystander.exchange({})
        with Foreign(server.endpoint) as foreign:
            reason = refusal(foreign, bad)
        if len(bad) > LIMIT:
            assert reason.endswith(f"{len(bad)} bytes is larger than the limit of {LIMIT}")
        else:
            assert reason.startswith("the server refused: malformed frame")
        bystander.exchange({})
        assert still_serves(server)
    assert ledger.account(0, "learn").messages == 0


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01"])
def test_who_speaks_another_protocol_or_not_at_all_is_in_nobodys_way(said, tls):
    server = LinkServer(double, Ledger(), tls=tls)
    host, port = server.endpoint.target.split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as stranger:
        stranger.sendall(said)
        assert still_serves(server)
        server.stop()


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_that_goes_in_the_middle_of_a_frame_is_in_nobodys_way(tls, monkeypatch):
    with LinkServer(double, Ledger(), tls=tls) as server:
        link = connect(server.endpoint.of(0), 0, "learn")
        link.exchange({})
        whole = encode({"x": torch.ones(2**20)})
        socket_link._write(link._connection, Frame((whole.parts[0], whole.parts[1][:1000])))
        link.close()
        assert still_serves(server)


def test_a_reply_that_cannot_be_read_ends_the_link(monkeypatch):
    with LoopbackLink(double, Ledger(), 0, "learn") as link:
        monkeypatch.setattr(link_module, "answer", lambda *_: Frame((b"garbage",)))
        with pytest.raises(LinkError, match="reply cannot be read"):
            link.exchange({})
        with pytest.raises(LinkError, match="closed"):
            link.exchange({})


def test_tls_certificate_is_for_the_address_and_for_nothing_else():
    with LinkServer(double, Ledger(), tls=True) as server:
        certificate = x509.load_pem_x509_certificate(server.endpoint.certificate.encode())
        assert "PRIVATE" not in server.endpoint.certificate
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert limits.ca is False
        assert still_serves(server)


def test_only_the_servers_own_certificate_is_trusted():
    with (
        LinkServer(double, Ledger(), tls=True) as server,
        LinkServer(double, Ledger(), tls=True) as other,
    ):
        for certificate in (other.endpoint.certificate, ""):
            stranger = replace(server.endpoint, certificate=certificate)
            with (
                connect(stranger, 0, "learn") as link,
                pytest.raises(LinkError, match=r"CERTIFICATE_VERIFY_FAILED|server is gone"),
            ):
                link.exchange({})
        assert still_serves(server)


def own_address():
    """An address of this machine other than its loopback, found without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


def test_off_the_loopback_tls_is_the_default_and_cannot_be_refused():
    address = own_address()
    if address is None or ipaddress.ip_address(address).is_loopback:
        pytest.skip("this machine has no address but its loopback")
    with LinkServer(double, Ledger(), host=address) as server:
        assert server.endpoint.target.startswith(f"{address}:")
        assert server.endpoint.certificate
        assert still_serves(server)
        port = int(server.endpoint.target.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    with pytest.raises(ValueError, match="loopback"):
        LinkServer(double, Ledger(), host=address, tls=False)


def test_it_listens_at_the_given_address_only():
    with LinkServer(double, Ledger()) as server:
        host, _, port = server.endpoint.target.rpartition(":")
        assert host == "127.0.0.1"
        assert server.endpoint.certificate == ""
        socket.create_connection((host, int(port)), timeout=TIMEOUT).close()
        # Another loopback address can take the same port only if nobody listens at every address.
        with socket.socket() as neighbour:
            try:
                neighbour.bind(("127.0.0.2", 0))
            except OSError:
                pytest.skip("this machine has one loopback address only")
        with socket.socket() as neighbour:
            neighbour.bind(("127.0.0.2", int(port)))


def test_ipv6_loopback():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with LinkServer(double, Ledger(), host="::1") as server:
        assert server.endpoint.target.startswith("[::1]:")
        assert still_serves(server)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "0", "::", "::ffff:0.0.0.0"])
def test_listening_at_every_address_is_refused(host):
    with pytest.raises(ValueError, match="allowed: one address"):
        LinkServer(double, Ledger(), host=host)


def test_a_host_of_another_machine_is_refused():
    with pytest.raises(LinkError, match=r"cannot listen at 192\.0\.2\.1"):
        LinkServer(double, Ledger(), host="192.0.2.1")


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
