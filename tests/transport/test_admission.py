"""Who is admitted to the link: strangers get nowhere and keep nobody out."""

import contextlib
import ipaddress
import select
import socket
from dataclasses import replace

import pytest
import torch
from cryptography import x509

from split_unlearning.transport import link as link_module
from split_unlearning.transport import socket_link
from split_unlearning.transport.frame import Frame, encode
from split_unlearning.transport.ledger import Ledger
from split_unlearning.transport.link import LinkError
from split_unlearning.transport.socket_link import LinkServer, connect
from tests.transport.foreign import LIMIT, TIMEOUT, Foreign, double, refusal, sent, still_serves
from tests.transport.loopback import LoopbackLink


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
