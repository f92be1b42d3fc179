"""The ledger: bytes across the cut and seconds of computing, by client and phase."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from split_unlearning.foundations.options import Settings, not_negative, positive, setting

PHASES = ("setup", "learn", "unlearn", "evaluate", "models")

_BITS_PER_BYTE = 8
_BITS_PER_MEGABIT = 1e6
_MILLISECONDS_PER_SECOND = 1e3


@dataclass(frozen=True, slots=True)
class Account:
    """The cost of one client in one phase; accounts add up.

    Bytes go up from the client to the server, and down. Messages are exchanges, each a request and
    its reply. The client computed for `client_seconds`, alone for `pretrain_seconds` of them; the
    server computed for the client for `server_seconds`.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    messages: int = 0
    client_seconds: float = 0.0
    server_seconds: float = 0.0
    pretrain_seconds: float = 0.0

    def __add__(self, other: "Account") -> "Account":
        return Account(
            self.bytes_up + other.bytes_up,
            self.bytes_down + other.bytes_down,
            self.messages + other.messages,
            self.client_seconds + other.client_seconds,
            self.server_seconds + other.server_seconds,
            self.pretrain_seconds + other.pretrain_seconds,
        )


_NOTHING = Account()

Row = tuple[int, str, Account]
"""One line of a ledger, which can be pickled: client, phase, account."""


class Ledger:
    """One account for each client and phase; threads may share it."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[int, str], Account] = {}
        self._lock = threading.Lock()

    def record(
        self,
        client: int,
        phase: str,
        *,
        up: int = 0,
        down: int = 0,
        messages: int = 0,
        client_seconds: float = 0.0,
        server_seconds: float = 0.0,
        pretrain_seconds: float = 0.0,
    ) -> None:
        """Add to the account of a client in a phase; amounts as in `Account`.

        Raises
        ------
        ValueError
            If the phase is none of `PHASES` or an amount is negative.
        """
        _require_phase(phase)
        amounts = (up, down, messages, client_seconds, server_seconds, pretrain_seconds)
        if min(amounts) < 0:
            raise ValueError("a ledger only adds: no amount can be negative")
        self.merge([(client, phase, Account(*amounts))])

    def account(self, client: int, phase: str) -> Account:
        """Return the account of a client in a phase, all zeros if nothing was recorded.

        Raises
        ------
        ValueError
            If the phase is none of `PHASES`.
        """
        _require_phase(phase)
        with self._lock:
            return self._accounts.get((client, phase), _NOTHING)

    def clients(self, phase: str) -> list[int]:
        """Return, in ascending order, the clients with costs in a phase.

        Raises
        ------
        ValueError
            If the phase is none of `PHASES`.
        """
        _require_phase(phase)
        return sorted(client for client, recorded, _ in self.rows() if recorded == phase)

    def rows(self) -> list[Row]:
        """Return every account as a row, in the order of first record."""
        with self._lock:
            return [(client, phase, account) for (client, phase), account in self._accounts.items()]

    def take(self) -> list[Row]:
        """Return every account as a row and start again from nothing, in one step.

        What another thread records meanwhile is in this answer or in the next, never in both: a
        ledger in another process is merged by sending the rows taken from it.
        """
        with self._lock:
            taken, self._accounts = self._accounts, {}
        return [(client, phase, account) for (client, phase), account in taken.items()]

    def merge(self, other: "Ledger | Iterable[Row]") -> None:
        """Add another ledger's accounts, or rows of a ledger, to this one.

        Raises
        ------
        ValueError
            If a row's phase is none of `PHASES`; nothing is added then.
        """
        rows = other.rows() if isinstance(other, Ledger) else list(other)
        for _, phase, _ in rows:
            _require_phase(phase)
        with self._lock:
            for client, phase, account in rows:
                # A client without costs is not listed: its absence shows that it got no message.
                if account != _NOTHING:
                    present = self._accounts.get((client, phase), _NOTHING)
                    self._accounts[client, phase] = present + account


@dataclass(frozen=True, kw_only=True)
class NetworkSpeed(Settings):
    """The network that transmission seconds are worked out for; nothing waits for them.

    The bandwidth is in megabits (1e6 bits) a second; the latency is a round trip's.
    """

    bandwidth_mbps: float = setting(positive(100.0, "for transmission seconds; never slept"))
    latency_ms: float = setting(not_negative(0.0, "round trip, for transmission seconds"))

    def seconds(self, size: int, messages: int) -> float:
        """Return how long traffic of a size in bytes takes: bits over bandwidth, and latencies.

        Each message is an exchange and waits for one round trip.
        """
        on_the_wire = size * _BITS_PER_BYTE / (self.bandwidth_mbps * _BITS_PER_MEGABIT)
        return on_the_wire + messages * self.latency_ms / _MILLISECONDS_PER_SECOND


def _require_phase(phase: str) -> None:
    if phase not in PHASES:
        raise ValueError(f"unknown phase {phase!r}; phases are {', '.join(PHASES)}")
