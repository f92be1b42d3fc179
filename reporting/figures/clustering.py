"""Clustering accuracy: how many labels each attack found (the paper's Figs. 6 and 8)."""

from __future__ import annotations

from split_unlearning.reporting.figures.figure import Figure, Panel
from split_unlearning.reporting.figures.shades import Shades
from split_unlearning.reporting.groups import axis_columns
from split_unlearning.reporting.results import Results
from split_unlearning.reporting.table import Column, make_table
from split_unlearning.reporting.values import Label, Summary, Value, in_words

_KINDS = ("perfect", "inclusive")


def clustering_accuracy(results: Results) -> Figure | None:
    """Return what each attack on masked labels reached, None if none was run."""
    reached = results.names("matching/")
    attacks = dict.fromkeys(name.rpartition("/")[0] for name in reached)
    names = [name for name in attacks if name != "strongest"]
    attacked = [
        group
        for group in results.groups
        if any(phase.named("matching/") for cell in group.cells for phase in cell.phases)
    ]
    panels: list[Panel] = []
    rows: list[tuple[Value, ...]] = []
    for task, called in results.phases.items():
        found = {
            kind: [
                [results.of(group, task, f"matching/{name}/{kind}") for name in names]
                for group in attacked
            ]
            for kind in _KINDS
        }
        if not any(share for row in found["perfect"] for share in row):
            continue
        settings = [group.name().text for group in attacked]
        for kind, shares in found.items():
            heading = f"{kind.capitalize()} accuracy after {called}, in percent"
            said = [
                f"{setting}: {_listed(names, row)}."
                for setting, row in zip(settings, shares, strict=True)
            ]
            percents = tuple(
                tuple(round(100 * one.mean) if one else None for one in row) for row in shares
            )
            words = f"{heading}. {' '.join(said)}"
            picture = Shades(tuple(settings), tuple(names), percents, words, 100)
            panels.append(Panel(heading, picture))
        rows += [
            (*group.labels(), Label(called), Label(name), *both)
            for group, *kinds in zip(attacked, *found.values(), strict=True)
            for name, *both in zip(names, *kinds, strict=True)
            if any(both)
        ]
    if not panels:
        return None
    columns = (
        *axis_columns(results.groups[0]),
        Column("phase", "phase"),
        Column("attack", "attack"),
        Column("perfect", "perfect", unit="share"),
        Column("inclusive", "inclusive", unit="share"),
    )
    return Figure(
        "label-matching",
        "Clustering accuracy of label matching",
        "How many real labels each attack (column) puts together from their masked ones. Perfect: "
        "exactly; inclusive: perhaps with others. The lighter, the less the server is told; no "
        "number is 0.",
        tuple(panels),
        (),
        make_table("figure-label-matching", "All attacks on masked labels", columns, rows),
    )


def _listed(names: list[str], shares: list[Summary | None]) -> str:
    pairs = zip(names, shares, strict=True)
    return "; ".join(f"{name} {in_words(one, 'share')}" for name, one in pairs if one)
