"""Whether a state is what training without the forgotten samples gives, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from split_unlearning.foundations.errors import StateError, UserError
from split_unlearning.foundations.files import explained, write_durably
from split_unlearning.simulations.preparation import Preparation
from split_unlearning.simulations.session.conversation import Conversation
from split_unlearning.simulations.session.result import environment
from split_unlearning.simulations.session.session import make_strategy
from split_unlearning.simulations.state.agenda import check_belongs, tasks_of
from split_unlearning.simulations.state.state_dir import StateDir
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.script import Script
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.segment import ServerSegment
from split_unlearning.unlearning.certificate import check, fingerprint, sign
from split_unlearning.unlearning.exactness import digest
from split_unlearning.unlearning.tensor_store import TensorStore

_VERSION = 1
_CLAIM = (
    "Every segment that the state-dir keeps has, bit for bit, the weights that training from "
    "scratch without the forgotten samples gives, under the same plan: the same config, pretrained "
    "weights if any, clients, slices, label list and scaling of pixels."
)


def verify(
    state: StateDir,
    prepared: Preparation,
    server: ServerSegment,
    conversation: Conversation,
    clients: Sequence[int],
) -> dict[str, Any]:
    """Train from scratch without what was forgotten, compare, and return the signed certificate.

    Nothing but the state's certificate is changed: the server segment is fresh and keeps nothing;
    the conversation is with `clients`, all but those that were dropped, which leave out what they
    keep as forgotten.

    Raises
    ------
    StateError
        If a task is not finished, what is kept is older than the journal, or the certificate
        cannot be written.
    """
    unfinished = [task for task in tasks_of(state.journal) if not task.committed]
    if unfinished:
        raise StateError(
            f"{unfinished[0].text or 'learning'!r} is not finished: the command that began it, or "
            f"split-unlearning unlearn {state.path}, finishes it"
        )
    check_belongs(tasks_of(state.journal), state.server.attempt, str(state.path))
    state.server.check()
    strategy = make_strategy(prepared, server, clients)
    strategy.addressing = {"clients": state.num_clients}
    kept: dict[str, Any] = {"server": _digest(state), "clients": {}}
    conversation.hold(strategy, _ask_for_kept(strategy, kept["clients"]), "evaluate")
    lost = [client for client in sorted(kept["clients"], key=int) if not kept["clients"][client]]
    if lost:
        raise StateError(
            f"client {', '.join(lost)} keeps no segment any more: there is nothing to compare; "
            f"split-unlearning unlearn {state.path} --drop-client forgets who is gone"
        )
    _check_noted(state, kept)
    conversation.hold(strategy, strategy.learn(), "learn")
    reference = {
        "server": server.call(ServerModel.digest),
        "clients": {str(client): strategy.client_digests.get(client) for client in clients},
    }
    difference = first_difference(kept, reference)
    claims = {
        "format": _VERSION,
        "claim": _CLAIM,
        "holds": difference is None,
        "first_difference": difference,
        "verified": datetime.now(UTC).isoformat(timespec="seconds"),
        "learned": _learned(state),
        "requests": _requests(state),
        "digests": {"kept": kept, "reference": reference},
        "config": prepared.config.as_mapping(),
        "pretrained": state.pretrained,
        "clients": state.num_clients,
        "environment": environment(
            prepared.config, server.call(ServerModel.device_name), strategy.client_devices
        ).model_dump(mode="json"),
        "journal": state.journal.head,
    }
    certificate = sign(claims, state.signing_key())
    with explained(state.certificate):
        write_durably(state.certificate, (json.dumps(certificate, indent=2) + "\n").encode())
    return certificate


def _digest(state: StateDir) -> str | None:
    """Return the digest of the server segment that is kept, of the file itself."""
    weights = TensorStore(state.server).load("segment")
    return None if weights is None else digest(weights)


def _ask_for_kept(strategy: SplitStrategy, kept: dict[str, Any]) -> Script:
    """Ask every client for the digest of the segment that it keeps, of the file itself."""
    replies = yield strategy.ask(strategy.clients, "tell-kept")
    kept |= {str(reply.client): reply.message.fields["kept"] or None for reply in replies}


def _check_noted(state: StateDir, kept: dict[str, Any]) -> None:
    """Check that what is kept is what the journal says was prepared last.

    Older parts, put back under the name of the newer attempt, would be trained again with samples
    that were forgotten since, and agree with that training.

    Raises
    ------
    StateError
        With the part that is something else.
    """
    noted: dict[str, str] = {}
    for task in tasks_of(state.journal):
        assert task.prepared is not None
        digests = task.prepared["digests"]
        noted["server"] = digests["server"]
        for client in task.prepared["changed"]:
            noted[f"client {client}"] = digests["clients"].get(str(client))
    parts = {f"client {client}": digest for client, digest in kept["clients"].items()}
    for part, found in {**parts, "server": kept["server"]}.items():
        if found != noted.get(part, found):
            raise StateError(
                f"the segment of {part} in {state.path} is not the segment that the journal names: "
                "it was exchanged since the last request"
            )


def first_difference(kept: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first segment, clients before the server, whose digests differ; None if none."""
    pairs = {
        f"client {client}": (kept["clients"][client], reference["clients"][client])
        for client in sorted(reference["clients"], key=int)
    }
    pairs["server"] = kept["server"], reference["server"]
    for segment, (digest_kept, retrained) in pairs.items():
        if digest_kept != retrained:
            return {"segment": segment, "kept": digest_kept, "reference": retrained}
    return None


def _learned(state: StateDir) -> dict[str, Any]:
    """Return when learning was done, on what machine, and the digests after it."""
    events = [event for event in state.journal.events if event.get("task") == 0]
    (prepared,) = (event for event in events if event["event"] == "prepared")
    return {
        "time": prepared["time"],
        "digests": prepared["digests"],
        "environment": prepared["environment"],
    }


def _requests(state: StateDir) -> list[dict[str, Any]]:
    """Return each request: when it was asked, what was redone, the digests before and after."""
    events = state.journal.events
    done = {event["task"]: event["time"] for event in events if event["event"] == "committed"}
    tasks = tasks_of(state.journal)
    listed = []
    for before, task in pairwise(tasks):
        assert before.prepared is not None
        assert task.prepared is not None
        listed.append(
            {
                "requests": [request.to_field() for request in task.asked],
                "dropped": task.drop,
                "received": task.received,
                "committed": done[task.number],
                "forgotten": task.prepared["forgotten"],
                "redone": task.prepared["redone"],
                "digests": {
                    "before": before.prepared["digests"],
                    "after": task.prepared["digests"],
                },
                "environment": task.prepared["environment"],
            }
        )
    return listed


def read_certificate(path: Path, state: StateDir | None) -> tuple[dict[str, Any], str]:
    """Return a certificate that is as it was signed, and the lines that say it to people.

    With a state, it is signed with the key of that state.

    Raises
    ------
    UserError
        If it is not, or cannot be read.
    """
    try:
        certificate = json.loads(path.read_text(encoding="utf-8"))
        check(certificate, state.signing_key() if state else None)
        return certificate, render_certificate(certificate)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        reason = error if isinstance(error, UserError) else "it is no certificate"
        raise UserError(f"{path}: {reason}") from error


def render_certificate(certificate: dict[str, Any]) -> str:
    """Return a certificate as a few lines for people."""
    lines = [f"Certificate of {certificate['verified']}: {_finding(certificate)}"]
    for request in certificate["requests"]:
        asked = "; ".join(
            f"{each['text']} of {', '.join(f'client {client}' for client in each['samples'])}"
            for each in request["requests"]
        )
        redone = "; ".join(f"{what} {which}" for what, which in request["redone"].items() if which)
        verb = "dropped" if request["dropped"] else "forgot"
        lines.append(f"  {request['committed']} {verb} {asked}")
        lines.append(f"    redone: {redone or 'not recorded, by this strategy and method'}")
        before, after = (request["digests"][when]["server"][:16] for when in ("before", "after"))
        lines.append(f"    server segment: {before}... before, {after}... after")
    digests = certificate["digests"]
    lines += [
        f"  server segment kept:      {digests['kept']['server']}",
        f"  server segment reference: {digests['reference']['server']}",
    ]
    machine = certificate["environment"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "numpy", "flwr"))
    # A certificate from before there was a choice does not name it,
    computed = f"{machine['threads']} threads, {machine.get('precision', 'float32')}"
    # nor the devices of clients, from before they were recorded.
    clients = f" (clients: {', '.join(machine.get('client_devices', ['not told']))})"
    lines.append(f"  given {versions}, {machine['server_device']}{clients}, {computed}")
    lines.append(f"  on {machine['platform']}")
    lines.append(f"  signed with key {fingerprint(certificate)}")
    return "\n".join(lines)


def _finding(certificate: dict[str, Any]) -> str:
    if certificate["holds"]:
        count = len(certificate["digests"]["reference"]["clients"]) + 1
        return f"holds; {count} segments are those of training without the forgotten samples"
    first = certificate["first_difference"]
    return (
        f"DOES NOT HOLD; {first['segment']} is {first['kept']}, and training without the forgotten "
        f"samples gives {first['reference']}"
    )
