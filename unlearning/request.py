"""Requests to forget, and the samples that a request means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Option, Settings, setting, text_of
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.foundations.text import whole_number
from split_unlearning.unlearning.asking import (
    ASKING,
    Asking,
    asking,
    named_clients,
    names_who_asks,
)
from split_unlearning.unlearning.exactness import Ids, order

_GRAMMAR = "class:NAME, client:N, samples:SHARE@class:NAME, ids:FILE; several separated by ;"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request to forget.

    `text` is what the user wrote; it does not leave the place where it was made. The `client` asks;
    it is None where `ids` determine it, and where several ask: the `clients`, or everybody who
    holds such samples where these are none. Meant is a share, in (0, 1], of the samples of a label,
    by its name or number, of all labels where that is empty, and of these `ids`, if there are any.
    `loaded` reads the ids from `ids_file`, which is empty then. The `number` is that of the request
    in the run: a request that arrives twice is acted upon once.
    """

    text: str
    client: int | None = None
    clients: tuple[int, ...] = ()
    label: str = ""
    share: float = 1.0
    ids: tuple[int, ...] = ()
    ids_file: str = ""
    number: int = 0

    def loaded(self) -> Request:
        """Return the request with the sample ids from its file.

        `parse_requests` does not read the file, which exists where the request is made and not on
        every client.

        Raises
        ------
        UserError
            If the file cannot be read or holds anything but sample ids, one a line.
        """
        if not self.ids_file:
            return self
        if not Path(self.ids_file).is_file():
            # Reading a pipe might never end.
            raise refuse("forget", self.text, "a file of sample ids, one a line (there is none)")
        try:
            words = Path(self.ids_file).read_text(encoding="utf-8").split()
            ids = sorted({int(word) for word in words})
        except (OSError, ValueError) as error:
            raise refuse(
                "forget", self.text, f"a file of sample ids, one a line ({error})"
            ) from error
        if not ids or ids[0] < 0 or ids[-1] >= 2**63:
            raise refuse(
                "forget", self.text, "a file of at least one sample id, from 0 to 2^63 - 1"
            )
        return replace(self, ids=tuple(ids), ids_file="")

    def meant_for(self, client: int, ids: Ids) -> Request:
        """Return the request for a client: it asks alone, for those of its samples alone."""
        if self.ids:
            return replace(self, ids=tuple(ids.tolist()))
        return replace(self, client=client, clients=())

    def to_field(self) -> str:
        """Return the request of one client as text for a field of an instruction."""
        fields = asdict(self)
        del fields["clients"]
        return json.dumps({**fields, "text": ""})

    @classmethod
    def from_field(cls, text: str) -> Request:
        """Read what `to_field` wrote."""
        values = json.loads(text)
        return cls(**{**values, "ids": tuple(values["ids"])})

    def label_index(self, class_names: Sequence[str]) -> int | None:
        """Return the number of the request's label, None if the request names no label.

        Raises
        ------
        UserError
            If the data set has no such label.
        """
        if not self.label:
            return None
        number = number_of_label(self.label, class_names)
        if number is None:
            names = ", ".join(class_names)
            raise refuse("forget", self.text, f"one of the {len(class_names)} labels: {names}")
        return number

    def select(
        self,
        client: int,
        ids: Ids,
        labels: NDArray[np.int64],
        class_names: Sequence[str],
        seed: int,
    ) -> Ids:
        """Return the sorted ids of a client's samples that the request means.

        The client holds `ids` and `labels`, int64, shape (n,). A share is drawn with the run's
        seed.
        """
        if self.client is not None and client != self.client:
            return np.empty(0, dtype=np.int64)
        if self.clients and client not in self.clients:
            return np.empty(0, dtype=np.int64)
        meant = np.ones(len(ids), dtype=bool)
        if self.ids:
            meant &= np.isin(ids, np.array(self.ids, dtype=np.int64))
        label = self.label_index(class_names)
        if label is not None:
            meant &= labels == label
        selected = ids[meant]
        if self.share < 1 and len(selected):
            drawn = order(selected, derive_seed(seed, "forget-share", client))
            selected = selected[drawn[: max(1, round(self.share * len(selected)))]]
        return np.sort(selected)


def number_of_label(name: str, class_names: Sequence[str]) -> int | None:
    """Return the number of a label by its name, or by its number; None if there is no such."""
    if name in class_names:
        return list(class_names).index(name)
    number = whole_number(name)
    return number if number is not None and number < len(class_names) else None


@dataclass(frozen=True, kw_only=True)
class RequestSettings(Settings):
    """What a run is to forget, as the user writes it."""

    forget: str = setting(
        text_of(
            "class:2",
            "class:NAME, client:N, samples:SHARE@class:NAME, ids:FILE, or empty for nothing",
            "what to forget; several requests are separated by ;",
        )
    )
    forget_client: str = setting(
        Option("0", ASKING, names_who_asks, "whose samples class: and samples: mean", mixed=True)
    )

    def requests(self) -> list[Request]:
        """Return the requests, one after the other; raises as `parse_requests`."""
        return parse_requests(self.forget, self.forget_client)


def parse_requests(text: str, forget_client: Asking) -> list[Request]:
    """Read the run-config key ``forget``: requests separated by ``;``.

    ``class:`` and ``samples:`` mean samples of `forget_client`: of a client, or of several.

    Raises
    ------
    UserError
        With the part that cannot be read and what is allowed.
    """
    parts = [part.strip() for part in text.split(";") if part.strip()]
    return [
        replace(_parse_request(part, forget_client), number=number)
        for number, part in enumerate(parts)
    ]


def _parse_request(text: str, forget_client: Asking) -> Request:
    kind, _, rest = text.partition(":")
    who = asking(forget_client)
    several = named_clients(who) if isinstance(who, str) else ()
    one = None if isinstance(who, str) else who
    if kind == "class" and rest:
        return Request(text=text, client=one, clients=several, label=rest)
    if kind == "client" and (client := whole_number(rest)) is not None:
        return Request(text=text, client=client)
    if kind == "samples":
        share_text, _, target = rest.partition("@")
        label_kind, _, label = target.partition(":")
        try:
            share = float(share_text)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1 or label_kind != "class" or not label:
            raise refuse("forget", text, "samples:SHARE@class:NAME with 0 < SHARE <= 1")
        return Request(text=text, client=one, clients=several, label=label, share=share)
    if kind == "ids" and rest:
        if not Path(rest).is_absolute():
            raise refuse("forget", text, "an absolute path: a run has no current folder of yours")
        return Request(text=text, ids_file=rest)
    raise refuse("forget", text, _GRAMMAR)
