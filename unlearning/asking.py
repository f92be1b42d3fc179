"""Who asks to forget samples of a label: one client, several, or everybody who holds some."""

from __future__ import annotations

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.text import whole_number

ASKING = "the number of a client from 0, several as 0,2,5, or all"

Asking = int | str
"""Who asks to forget some samples of a label: a client's number, ``0,2,5`` for several, ``all``."""

EVERYBODY = "all"


def asking(text: Asking) -> Asking:
    """Return who asks, in the one way in which it is written down.

    Raises
    ------
    UserError
        If a text names nobody.
    """
    if text == EVERYBODY:
        return EVERYBODY
    numbers = [whole_number(part.strip()) for part in str(text).split(",")]
    known = sorted({number for number in numbers if number is not None})
    if None in numbers:
        raise refuse("forget-client", text, ASKING)
    return known[0] if len(known) == 1 else ",".join(map(str, known))


def named_clients(who: Asking) -> tuple[int, ...]:
    """Return the clients that are named, none where everybody is meant."""
    return () if who == EVERYBODY else tuple(int(one) for one in str(asking(who)).split(","))


def names_who_asks(text: str) -> bool:
    """Return whether a text names who asks."""
    try:
        asking(text)
    except UserError:
        return False
    return True
