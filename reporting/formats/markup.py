"""HTML and SVG built from elements: what is not an element is escaped, by construction."""

from __future__ import annotations

import re
from html import escape

# What neither HTML nor XML may hold.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset({"meta", "br", "hr", "line", "rect", "circle", "path", "polyline", "polygon"})


class Markup(str):
    """A text that is markup already, and is put into other markup as it is."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Return a value as markup that shows it, whatever it holds."""
    if isinstance(value, Markup):
        return value
    return Markup(escape(_FORBIDDEN.sub("\ufffd", str(value)), quote=True))


def join(*parts: object) -> Markup:
    """Return parts one after the other; those that are no markup are escaped."""
    return Markup("".join(text(part) for part in parts))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return one element.

    Parameters
    ----------
    tag : str
        Its name.
    children : object
        What it holds: markup as it is, everything else escaped.
    attributes : object
        By name; ``_`` stands for ``-``, and one at the end is dropped (``class_``). One that is
        None or False is left out, one that is True is written without a value.
    """
    words = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        words.append(name if value is True else f'{name}="{text(value)}"')
    opening = f"<{' '.join(words)}"
    if tag in _VOID and not children:
        return Markup(f"{opening}/>")
    return Markup(f"{opening}>{join(*children)}</{tag}>")
