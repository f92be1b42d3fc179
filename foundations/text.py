"""Numbers and structures in text that a stranger wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

_Text = TypeVar("_Text", str, bytes)
_Value = TypeVar("_Value")


def whole_number(text: str) -> int | None:
    """Return the number that up to 18 ASCII digits write; None for any other text.

    Eighteen digits fit into 64 bits, and Python refuses to read some thousand.
    """
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def parsed(parse: Callable[[_Text], _Value], text: _Text) -> _Value:
    """Parse a text, with `json.loads` for instance.

    Raises
    ------
    ValueError
        As `parse`, and if the text is nested so deeply that it cannot be parsed.
    """
    try:
        return parse(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
