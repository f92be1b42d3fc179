"""A table drawn as a picture, whose cells are the darker the more they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from split_unlearning.reporting.values import shortened

_NAMED = 20  # so many columns have room for names and numbers
_LETTER = 0.058  # inches
_PAPER, _EMPTY = "#ffffff", "#f6f7f9"


@dataclass(frozen=True)
class Shades:
    """Whole numbers of rows and columns, None where there is none; `words` say the same.

    The darkest stands for `most`, which is the largest number where it is 0.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[int | None, ...], ...]
    words: str
    most: int = 0

    def draw(self) -> Figure:
        """Return the picture as a figure of matplotlib's, as large as it needs to be."""
        named = len(self.columns) <= _NAMED
        wide, high = (0.32, 0.24) if named else (max(0.04, 6.5 / len(self.columns)), 0.15)
        names = [shortened(name) for name in self.columns] if named else []
        rows = [shortened(name, 70) for name in self.rows]
        tilted = max(map(len, names), default=0) * _LETTER > wide
        left = 0.1 + _LETTER * max(map(len, rows))
        top = 0.1 + (0.72 * _LETTER * max(map(len, names)) if tilted else 0.12)
        right = 0.1 + (0.72 * _LETTER * len(names[-1]) if tilted and names else 0)
        size = (left + wide * len(self.columns) + right, top + high * len(rows) + 0.1)
        figure = Figure(size)
        box = (left / size[0], 0.1 / size[1], wide * len(self.columns) / size[0])
        axes = figure.add_axes((*box, high * len(rows) / size[1]))
        axes.set(xlim=(0, len(self.columns)), ylim=(len(rows), 0), facecolor="none")
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.set_xticks([place + 0.5 for place in range(len(names))], names)
        if tilted:
            axes.tick_params("x", pad=1)
            for text in axes.get_xticklabels():
                text.set(rotation=45, ha="left", rotation_mode="anchor")
        axes.set_yticks([place + 0.5 for place in range(len(rows))], rows)
        self._fill(axes, numbered=named)
        return figure

    def tooltips(self) -> dict[str, list[str]]:
        """Return what is said of each cell, by the id that is drawn for all of them."""
        return {
            "cells": [
                f"{self.rows[row]}, {self.columns[place]}: {value}"
                for row, place, value in self._cells()
            ]
        }

    def _cells(self) -> Iterator[tuple[int, int, int]]:
        for row, line in enumerate(self.values):
            for place, value in enumerate(line):
                if value is not None:
                    yield row, place, value

    def _fill(self, axes: Axes, numbered: bool) -> None:
        colour = rcParams["axes.prop_cycle"].by_key()["color"][0]
        cells = list(self._cells())
        most = self.most or max((value for _, _, value in cells), default=0) or 1
        boxes = [
            [(x + a, y + b) for a, b in ((0.02, 0.03), (0.98, 0.03), (0.98, 0.97), (0.02, 0.97))]
            for y, x, _ in cells
        ]
        colours = [
            to_rgba(colour, 0.12 + 0.88 * value / most) if value else to_rgba(_EMPTY)
            for _, _, value in cells
        ]
        filled = PolyCollection(boxes, facecolors=colours, linewidths=0, gid="cells")
        axes.add_collection(filled)
        for y, x, value in cells if numbered else ():
            if value:
                ink = _PAPER if value > most / 2 else rcParams["axes.labelcolor"]
                axes.text(x + 0.5, y + 0.5, str(value), color=ink, ha="center", va="center")
