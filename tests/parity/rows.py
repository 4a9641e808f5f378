"""What the checks of parity print: a row per quantity, and whether it passes."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One quantity compared; `covers` is what it is called in the fixture."""

    covers: str
    precision: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # False for NaN


def run_check(
    arguments: list[str], usage: str | None, compare: Callable[[Path], Iterable[Row]]
) -> int:
    """Print the rows of one fixture; 0 if all pass, 1 if one does not, 2 if called wrongly."""
    as_json = "--json" in arguments
    prefixes = [each for each in arguments if each != "--json"]
    if len(prefixes) != 1:
        print(usage, file=sys.stderr)
        return 2
    rows = list(compare(Path(prefixes[0])))
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        show(rows)
    return 0 if all(row.passed for row in rows) else 1


def show(rows: list[Row]) -> None:
    """Print rows as a table."""
    print(f"{'quantity':36} {'precision':10} {'difference':>11} {'tolerance':>11}  pass")
    for row in rows:
        verdict = "yes" if row.passed else "NO"
        measured = f"{row.difference:11.2e} {row.tolerance:11.2e}"
        print(f"{row.covers:36} {row.precision:10} {measured}  {verdict}")
