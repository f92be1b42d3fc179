"""Cells that differ in their seed alone, and the settings that tell such groups apart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from split_unlearning.reporting.cells import Cell, Json
from split_unlearning.reporting.table import Column
from split_unlearning.reporting.values import Label

# These say how a cell compares with the paper, and set no cell apart.
_NOTES = frozenset({"paper_dataset", "paper-dataset"})
_FIRST = ("strategy", "unlearning")
# A slash in the name of a label is no part of a path.
_FOLDERS = re.compile(r"\b(npz|folder|ids):[^:;]*/")


@dataclass(frozen=True)
class Group:
    """A row of the tables: cells by their seed.

    `number` is its place among the rows, from 0; `axes` are the keys that set rows apart, the same
    for all rows; `others` differ, too, but follow from the axes.
    """

    number: int
    cells: tuple[Cell, ...]
    axes: tuple[str, ...]
    others: tuple[str, ...] = ()

    def value(self, axis: str) -> Any:
        """Return where the group stands on an axis, None if it has no place there."""
        return coordinate(self.cells[0], axis)

    def labels(self) -> tuple[Label | None, ...]:
        """Return the value on each axis as it is shown, then those of the other keys."""
        return tuple(
            None if self.value(axis) is None else shown(self.value(axis))
            for axis in (*self.axes, *self.others)
        )

    def name(self, without: str = "") -> Label:
        """Return what the group is called in a figure, without one of its axes."""
        short, full = [], []
        for axis, label in zip(self.axes, self.labels(), strict=False):
            if label is None or axis == without:
                continue
            said = "" if axis in _FIRST else f"{axis} "
            short.append(said + label.text)
            full.append(said + (label.full or label.text))
        if not short:
            return shown(self.cells[0].setting("strategy"))
        return Label(" · ".join(short), " · ".join(full) if full != short else "")


def coordinate(cell: Cell, axis: str) -> Any:
    """Return where a cell stands; the number of clients is an axis, too."""
    if axis == "clients":
        return cell.clients
    # A grid that does not vary the strategy need not name it.
    return cell.setting(axis) if axis == "strategy" else cell.coordinates.get(axis)


def make_groups(cells: Sequence[Cell], axes_first: Sequence[str]) -> tuple[Group, ...]:
    """Put cells together that differ in their seed alone, in the order of the grid.

    `axes_first` are the axes in the order of the specification; others that vary come after.
    """
    together: dict[str, list[Cell]] = {}
    for cell in cells:
        together.setdefault(_key(cell), []).append(cell)
    axes, others = needed(cells, axes_first)
    places = {axis: _places(coordinate(cell, axis) for cell in cells) for axis in axes}
    ordered = sorted(
        together.values(),
        key=lambda found: [places[axis][_exact(coordinate(found[0], axis))] for axis in axes],
    )
    return tuple(
        Group(number, tuple(sorted(found, key=lambda cell: (cell.seed, cell.id))), axes, others)
        for number, found in enumerate(ordered)
    )


def varying(cells: Sequence[Cell], axes_first: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the axes on which cells differ; the strategy, if they differ on none."""
    keys = {key for cell in cells for key in cell.coordinates} | {"clients"}
    order = [*dict.fromkeys([*axes_first, *_FIRST, *sorted(keys)])]
    found = tuple(
        axis
        for axis in order
        if axis in keys - _NOTES - {"seed"}
        and len({_exact(coordinate(cell, axis)) for cell in cells}) > 1
    )
    return found or ("strategy",)


def needed(
    cells: Sequence[Cell], axes_first: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the axes that tell rows apart, and those that follow from them.

    An axis that the specification names is always of the first kind; another is if it tells rows
    apart that no axis before it does.
    """
    kept: list[str] = []
    others: list[str] = []
    for axis in varying(cells, axes_first):
        if axis in axes_first or _distinct(cells, [*kept, axis]) > _distinct(cells, kept):
            kept.append(axis)
        else:
            others.append(axis)
    return tuple(kept), tuple(others)


def _distinct(cells: Sequence[Cell], axes: Sequence[str]) -> int:
    return len({tuple(_exact(coordinate(cell, axis)) for axis in axes) for cell in cells})


def constant(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return the coordinates that all cells share."""
    axes = varying(cells)
    first = cells[0]
    shared = {
        key: value
        for key, value in first.coordinates.items()
        if key not in (set(axes) | _NOTES | {"seed"})
    }
    return shared | ({} if "clients" in axes else {"clients": first.clients})


def axis_columns(group: Group) -> tuple[Column, ...]:
    """Return the columns that `Group.labels` fills; what follows from the axes is for programs."""
    shown_ones = (Column(axis, axis) for axis in group.axes)
    return (*shown_ones, *(Column(axis, axis, folded=True) for axis in group.others))


def shown(value: Any) -> Label:
    """Return a coordinate as it is shown; a dotted path by its class, all of it as a tooltip."""
    if value is None:
        return Label("none")
    if isinstance(value, bool):
        return Label(str(value).lower())
    if isinstance(value, float):
        return Label(f"{value:g}")
    if not isinstance(value, str):
        return Label(json.dumps(value))
    module, colon, name = value.rpartition(":")
    is_path = colon and name.isidentifier() and all(map(str.isidentifier, module.split(".")))
    # A request reads alike, `class:bird`; a path into a package has a dot, or a class's capital.
    if is_path and ("." in module or name[:1].isupper()):
        return Label(name, value)
    short = _FOLDERS.sub(r"\1:", value)
    return Label(short, value if short != value else "")


def as_number(value: Any) -> float | None:
    """Return a coordinate that is a number, or a text that is one."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _key(cell: Cell) -> str:
    kept: Json = {key: value for key, value in cell.coordinates.items() if key not in _NOTES}
    return _exact([kept, cell.clients])


def _places(values: Iterable[Any]) -> dict[str, int]:
    """Return the place of each value: numbers by size, then texts as they first appear."""
    distinct = {_exact(value): value for value in values}
    first = {name: place for place, name in enumerate(distinct)}

    def rank(name: str) -> tuple[bool, float, int]:
        size = as_number(distinct[name])
        return (size is None, size or 0.0, first[name])

    return {name: place for place, name in enumerate(sorted(distinct, key=rank))}
