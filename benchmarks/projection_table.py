"""The figures of `projection.py` as Markdown: a line a method, a column a scenario.

python benchmarks/projection_table.py FILE.json [FILE.json ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

Row = Mapping[str, Mapping[str, float | None]]

PAIRS = (("forgotten", "test"), ("membership", "distance"), ("evaluations", "seconds"))
"""Which figures stand side by side in a table."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="what projection.py wrote with --json")
    found: dict[str, Row] = {}
    for file in parser.parse_args().files:
        found |= json.loads(file.read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Row]] = {}
    for name, row in found.items():
        scenario, _, method = name.partition(": ")
        rows.setdefault(method, {})[scenario] = row
    scenarios = list(dict.fromkeys(name.partition(": ")[0] for name in found))
    for pair in PAIRS:
        print(f"\n{' / '.join(pair)}\n")
        print(f"| method | {' | '.join(scenarios)} |")
        print("|---" * (len(scenarios) + 1) + "|")
        for method, by_scenario in rows.items():
            cells = [cell(by_scenario.get(scenario), pair) for scenario in scenarios]
            print(f"| {method} | {' | '.join(cells)} |")


def cell(row: Row | None, pair: tuple[str, str]) -> str:
    """Return both figures of a pair; of the first also how far the seeds lie apart."""
    if row is None:
        return ""
    first, second = (row[name] for name in pair)
    around = f" ± {first['deviation']:.2f}" if pair == PAIRS[0] and first["deviation"] else ""
    return f"{first['mean']:.2f}{around} / {second['mean']:.{3 if pair == PAIRS[0] else 2}f}"


if __name__ == "__main__":
    main()
