"""Rows of CSV that a quote which nobody closed has taken into the value before them."""

import csv

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pa_csv

from ovseg.data.build.columns import looks_like_address
from ovseg.data.dataset.plan import Tally

SWALLOWED = "swallowed by an unbalanced quote"


class SwallowedRows:
    """Finds them by what stands in a value's further lines, and counts them in a tally.

    Values may have line breaks; a line that by itself has all the columns, and an address where
    the table has one, was a row.
    """

    def __init__(self, width: int, locator: int, tally: Tally) -> None:
        self._width = width
        self._locator = locator
        self._tally = tally

    def reject(self, row: pa_csv.InvalidRow) -> str:
        """Count a row with too many or too few values, and the rows in it."""
        inside = self._rows_in(row.text or "")
        self._tally.drop(SWALLOWED if inside else "wrong number of columns", 1 + inside)
        return "skip"

    def without(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that hold no other ones; the others are counted, with all that they hold."""
        broken = pa.array([False] * batch.num_rows)
        for column in batch.columns:
            broken = pa.compute.or_(broken, pa.compute.match_substring(column, "\n"))
        bad: set[int] = set()
        for place in pa.compute.indices_nonzero(broken).to_pylist():
            values = [column[place].as_py() for column in batch.columns]
            inside = sum(self._rows_in(value.decode("utf-8", "replace")) for value in values)
            if inside:
                self._tally.drop(SWALLOWED, 1 + inside)
                bad.add(place)
        if not bad:
            return batch
        return batch.filter(pa.array([place not in bad for place in range(batch.num_rows)]))

    def _rows_in(self, text: str) -> int:
        return sum(map(self._is_row, text.split("\n")[1:]))

    def _is_row(self, line: str) -> bool:
        try:
            values = next(csv.reader([line.rstrip("\r")]), [])
        except csv.Error:
            return False
        return len(values) == self._width > 1 and looks_like_address(values[self._locator])
