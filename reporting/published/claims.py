"""The claims of the SplitWiper paper, and whether a benchmark shows them; a function a claim.

A claim "holds", "does not hold" or, from these cells, "cannot be told", with the figures. It is
about cells that were retrained; cells are compared that differ in nothing but the strategy. There
is "no verdict" where a condition for one is missing (`published.conditions`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import pandas as pd

from split_unlearning.reporting.cells import Cell, Phase
from split_unlearning.reporting.groups import Group
from split_unlearning.reporting.published.conditions import CLAIMS, LEARNED, learned, missing
from split_unlearning.reporting.published.paper import SETTING, by_framework, published
from split_unlearning.reporting.published.terms import forgotten, is_altered
from split_unlearning.reporting.results import Results
from split_unlearning.reporting.table import Column, Table, make_table
from split_unlearning.reporting.values import Label, Summary, Tone, Value

Verdict = Literal["holds", "does not hold", "cannot be told", "no verdict"]

_TONES: dict[Verdict, Tone] = {
    "holds": "good",
    "does not hold": "bad",
    "cannot be told": "open",
    "no verdict": "open",
}
_SPLITWIPER = ("splitwiper", "splitwiper-plus")
_ZERO = "0.00 s in every row"
_NO_PAIR = "no cells with splitwiper and {} that retrain and are otherwise alike"
# Settings that have to be equal where two strategies are compared; others are their own.
_SHARED = (
    "dataset",
    "distribution",
    "dirichlet-alpha",
    "labels-per-client",
    "shards-per-client",
    "model",
    "cut",
    "forget",
    "forget-client",
    "pretrain-epochs",
    "server-epochs",
    "batch-size",
    "learning-rate",
    "momentum",
    "weight-decay",
)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, whether it shows, and the numbers that say so, or what is missing.

    `paper` is what the paper's own tables give; empty where they do not have it.
    """

    text: str
    verdict: Verdict
    figures: str
    paper: str = ""


def check_claims(results: Results) -> list[Claim]:
    """Return all claims, in the paper's order."""
    rows, left_out = learned(results)
    baselines = ("vanilla", "u-shaped")
    found = {
        "training-cost": [cost_is_cut(rows, one, "training") for one in baselines],
        "transmission-cost": [cost_is_cut(rows, one, "transmission") for one in baselines],
        "others-pay-nothing": [others_pay_nothing(rows)],
        "label-gone": [forgotten_label_is_gone(rows)],
        "retained-accuracy": [
            retained_is_better(rows, one, phase)
            for phase in ("learning", "forgetting")
            for one in baselines
        ],
        "hit-rate": [hit_rate_falls(rows)],
        "hidden-labels": [labels_stay_hidden(rows, of_paper) for of_paper in (True, False)],
    }
    return [
        _judged(claim, missing(results.benchmark, name), left_out)
        for name in CLAIMS
        for claim in found[name]
    ]


def _judged(claim: Claim, condition: str, left_out: str) -> Claim:
    """Return a claim without its verdict where a condition for one is missing."""
    told = claim.verdict
    if told == "cannot be told":
        return replace(claim, figures="; ".join(filter(None, [claim.figures, left_out])))
    said = [claim.figures, condition and f"no verdict: {condition}", left_out]
    return replace(
        claim, verdict="no verdict" if condition else told, figures="; ".join(filter(None, said))
    )


def claims_table(claims: Sequence[Claim]) -> Table:
    """Return the claims as a table."""
    rows: list[tuple[Value, ...]] = [
        (
            Label(claim.text),
            Label(claim.verdict, tone=_TONES[claim.verdict]),
            Label(claim.figures),
            Label(claim.paper) if claim.paper else None,
        )
        for claim in claims
    ]
    columns = (
        Column("claim", "the paper's claim"),
        Column("verdict", "from these cells"),
        Column("figures", "figures"),
        Column("paper", "in the paper's own tables"),
    )
    notes = (
        "About cells that retrain. Compared are cells that differ in the strategy alone, by their "
        "means over the seeds; a claim holds if it does in every comparison. A cut is taken as the "
        "paper writes it, in whole percent.",
        "There is a verdict where the benchmark's spec says that its runs can judge the claim, and "
        "from rows whose network has learned. A network has learned if its retained accuracy after "
        f"learning is at least {100 * LEARNED:.0f} % of the way from guessing to 100 %. Guessing "
        "means to name the label that a client holds most of.",
    )
    return make_table("paper-claims", "Claims of the SplitWiper paper", columns, rows, notes)


def cost_is_cut(results: Results, baseline: str, quantity: str) -> Claim:
    """Say whether forgetting costs the requesting client 97 to 99 % less with SplitWiper.

    `quantity` is ``training`` seconds, without pre-training as in the paper, or ``transmission``
    seconds on the way up.
    """
    text = f"Forgetting costs the requesting client 97-99 % less {quantity} than with {baseline}"
    measure = f"requesting/{'split_seconds' if quantity == 'training' else 'bytes_up'}"
    cuts = []
    for ours, theirs in _compared(results.groups, baseline):
        mine, other = results.of(ours, 1, measure), results.of(theirs, 1, measure)
        if mine is not None and other is not None and other.mean > 0:
            cuts.append((1 - mine.mean / other.mean, mine, other))
    paper = _published_cut(baseline, quantity)
    if not cuts:
        return Claim(text, "cannot be told", _NO_PAIR.format(baseline), paper)
    worst, mine, other = min(cuts, key=lambda cut: cut[0])
    where, factor = ("", 1.0) if quantity == "training" else (" at 100 Mbps", 8e-8)
    figures = (
        f"{_range([cut for cut, _, _ in cuts])} less"
        f" ({mine.mean * factor:.4g} s against {other.mean * factor:.4g} s{where}"
        f"{_where_worst(cuts)})"
    )
    # In whole percent, as the paper writes it.
    if 100 * worst >= 96.5 - 1e-9:
        return Claim(text, "holds", figures, paper)
    return Claim(text, "does not hold", figures, paper)


def others_pay_nothing(results: Results) -> Claim:
    """Say whether forgetting costs clients that did not ask nothing: no message, no second."""
    text = "Forgetting costs the other clients nothing (splitwiper, splitwiper-plus)"
    others = [
        client
        for phase in _forgettings(results.groups)
        for client in phase.clients
        if not client["requested"]
    ]
    if not others:
        return Claim(text, "cannot be told", "no such cell has other clients and a forgetting")
    spent = [one for one in others if one["train_seconds"] or one["bytes"] or one["messages"]]
    if not spent:
        return Claim(text, "holds", f"0 bytes and 0 s in all {len(others)} cases", _ZERO)
    figures = (
        f"{len(spent)} of {len(others)} pay, up to {max(one['bytes'] for one in spent):,.0f} bytes "
        f"and {max(one['train_seconds'] for one in spent):.3g} s"
    )
    return Claim(text, "does not hold", figures, _ZERO)


def forgotten_label_is_gone(results: Results) -> Claim:
    """Say whether accuracy on a label that was forgotten whole is 0 % with SplitWiper.

    As the paper writes it, to the hundredth of a percent.
    """
    text = "Accuracy on a forgotten label is 0 % (splitwiper, splitwiper-plus)"
    found = [
        phase.measures["accuracy/unlearned"]
        for phase in _forgettings(results.groups)
        if "accuracy/unlearned" in phase.measures and _is_a_whole_label(phase.request)
    ]
    if not found:
        return Claim(text, "cannot be told", "no such cell forgets a whole label", "0.00 %")
    figures = f"at most {100 * max(found):.2f} % in {len(found)} runs"
    holds = round(100 * max(found), 2) == 0
    return Claim(text, "holds" if holds else "does not hold", figures, "0.00 %")


def retained_is_better(results: Results, baseline: str, phase: str) -> Claim:
    """Say whether SplitWiper is more accurate on what is retained.

    `phase` is ``learning`` or the first ``forgetting``. A difference within two of its standard
    errors tells nothing, where seeds give one.
    """
    text = f"After {phase}, splitwiper is more accurate on retained labels than {baseline}"
    task = 0 if phase == "learning" else 1
    found: list[tuple[float, float]] = []
    for ours, theirs in _compared(results.groups, baseline):
        mine, other = (results.of(one, task, "accuracy/retained") for one in (ours, theirs))
        if mine is not None and other is not None:
            found.append((mine.mean - other.mean, 2 * _error(mine, other)))
    paper = _published_gain(baseline, "learn" if task == 0 else "unlearn")
    if not found:
        return Claim(text, "cannot be told", _NO_PAIR.format(baseline), paper)
    values = ", ".join(
        f"{100 * gain:+.1f}" + (f" ± {100 * error:.1f}" if error else "")
        for gain, error in found[:6]
    )
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    kind = "± two standard errors" if any(error for _, error in found) else "one seed each"
    figures = f"{values} points{more} ({kind})"
    if any(gain < -error or gain <= 0 == error for gain, error in found):
        return Claim(text, "does not hold", figures, paper)
    if all(gain > error for gain, error in found):
        return Claim(text, "holds", figures, paper)
    return Claim(text, "cannot be told", f"{figures}; within the noise of seeds", paper)


def hit_rate_falls(results: Results) -> Claim:
    """Say whether the membership hit rate falls as a larger share δ of a label is forgotten.

    From δ = 0, before forgetting, on; cells are put in a row that differ in δ alone.
    """
    text = "The membership hit rate falls with δ, the share of a label that is forgotten"
    rates = pd.DataFrame(
        [line for cell in results.benchmark.cells for line in _by_share(cell)],
        columns=["series", "share", "rate"],
    )
    means = rates.groupby(["series", "share"], sort=False)["rate"].mean()
    series = [
        one.droplevel("series").sort_index() for _, one in means.groupby("series", sort=False)
    ]
    # Before and after one request is no row yet: which samples are attacked differs with δ.
    series = [one for one in series if (one.index > 0).sum() >= 2]
    paper = _published_falls()
    if not series:
        reason = "no cells differ in the share of samples:SHARE@class:NAME and have a hit rate"
        return Claim(text, "cannot be told", reason, paper)
    rising = [one for one in series if not _falls(one)]
    shown = (rising or series)[0]
    words = ", ".join(f"{100 * rate:.1f} % at {delta:g}" for delta, rate in shown.items())
    counted = f"{len(series) - len(rising)} of {len(series)} fall; " if len(series) > 1 else ""
    verdict: Verdict = "does not hold" if rising else "holds"
    return Claim(text, verdict, counted + words, paper)


def labels_stay_hidden(results: Results, paper_attacks: bool) -> Claim:
    """Say whether label matching is perfect for at most 10 % of labels at γ = 3.

    With `paper_attacks`, by the attacks that the claim is about (KMeans and BIRCH with the elbow),
    on copies=replicate, which it is about; else by the strongest of all that were run, on any.
    """
    by = "KMeans and BIRCH with the elbow" if paper_attacks else "the strongest of our attacks"
    text = f"At γ = 3, label matching is perfect for at most 10 % of labels, by {by}"
    names = ("kmeans elbow", "birch elbow") if paper_attacks else ("strongest",)
    found = [
        (rate, cell, name)
        for cell in results.benchmark.cells
        if cell.setting("strategy") == "splitwiper-plus" and str(cell.setting("expansion")) == "3"
        for phase in cell.phases
        for name in names
        if (rate := phase.measures.get(f"matching/{name}/perfect")) is not None
    ]
    if paper_attacks:
        found = [one for one in found if one[1].setting("copies") == "replicate"]
    if not found:
        copies = ", copies=replicate" if paper_attacks else ""
        reason = f"no splitwiper-plus cell with expansion=3, attacks=true{copies}"
        return Claim(text, "cannot be told", reason)
    rates = [rate for rate, _, _ in found]
    _, cell, name = max(found, key=lambda one: one[0])
    figures = (
        f"{100 * fmean(rates):.1f} % on average, at most {100 * max(rates):.1f} % "
        f"({name}, copies={cell.setting('copies')})"
    )
    holds = max(rates) <= 0.1 + 1e-9
    return Claim(text, "holds" if holds else "does not hold", figures)


def _compared(groups: Sequence[Group], baseline: str) -> Iterator[tuple[Group, Group]]:
    """Yield rows of splitwiper and of another strategy that differ in nothing else."""
    for ours in groups:
        for theirs in groups:
            cell, other = ours.cells[0], theirs.cells[0]
            if (
                (cell.setting("strategy"), other.setting("strategy")) == ("splitwiper", baseline)
                and _is_retrained(cell)
                and _is_retrained(other)
                and _shared(cell) == _shared(other)
            ):
                yield ours, theirs


def _shared(cell: Cell, without: str = "") -> tuple[object, ...]:
    return (cell.clients, *(str(cell.setting(key)) for key in _SHARED if key != without))


def _is_retrained(cell: Cell) -> bool:
    return cell.setting("unlearning") == "retrain" and not is_altered(cell)


def _forgettings(groups: Sequence[Group]) -> Iterator[Phase]:
    """Yield each forgetting of SplitWiper's cells that retrain."""
    for group in groups:
        for cell in group.cells:
            if cell.setting("strategy") in _SPLITWIPER and _is_retrained(cell):
                yield from (phase for phase in cell.phases if phase.task)


def _is_a_whole_label(request: str) -> bool:
    found = forgotten(request, ())
    return found is not None and found.share == 1


def _by_share(cell: Cell) -> Iterator[tuple[object, float, float]]:
    """Yield a cell's hit rates by the share that is forgotten, and what is alike in a series."""
    phase = cell.phase(1)
    meant = forgotten(phase.request, ()) if phase else None
    after = cell.measure(1, "membership/hit_rate")
    if meant is None or after is None or not _is_retrained(cell):
        return
    own = sorted((key, str(value)) for key, value in cell.coordinates.items() if key != "forget")
    series = str((own, _shared(cell, "forget"), meant.label))
    yield series, meant.share, after
    before = cell.measure(1, "membership_before/hit_rate")
    if before is not None:
        yield series, 0.0, before


def _falls(rates: pd.Series) -> bool:
    return bool(rates.is_monotonic_decreasing and rates.iloc[-1] < rates.iloc[0])


def _error(one: Summary, other: Summary) -> float:
    """Return the standard error of the difference of two means; 0 where seeds do not give one."""
    squares = [
        value.deviation**2 / value.count for value in (one, other) if value.deviation is not None
    ]
    return math.sqrt(sum(squares))


def _range(shares: Sequence[float]) -> str:
    low, high = min(shares), max(shares)
    if round(1000 * low) == round(1000 * high):
        return f"{100 * low:.1f} %"
    return f"{100 * low:.1f} to {100 * high:.1f} %, {100 * fmean(shares):.1f} % on average,"


def _where_worst(found: Sequence[object]) -> str:
    return f", the smallest of {len(found)}" if len(found) > 1 else ""


def _published_cut(baseline: str, quantity: str) -> str:
    where = {"scenario": "unlearn", "clients": "requesting"}
    seconds = by_framework("client_time", f"{quantity}_s", **where)
    cuts = 1 - seconds["splitwiper"] / seconds[baseline]
    return f"{_range(cuts.tolist())} less, {len(cuts)} settings".replace(", less", " less")


def _published_gain(baseline: str, scenario: str) -> str:
    where = {"scenario": scenario, "labels": "retained"}
    accuracies = by_framework("label_accuracy", "accuracy_percent", **where)
    gains = accuracies["splitwiper"] - accuracies[baseline]
    return (
        f"{gains.min():+.1f} to {gains.max():+.1f} points, {gains.mean():+.1f} on average; above 0 "
        f"in {(gains > 0).sum()} of {len(gains)} settings"
    )


def _published_falls() -> str:
    table = published("membership_hit_rate")
    table = table.assign(delta=table["delta"].astype(float)).sort_values("delta")
    rows = table.groupby([*SETTING, "framework"])["hit_rate_percent"].apply(_falls)
    return f"falls in {rows.sum()} of {len(rows)} rows"
