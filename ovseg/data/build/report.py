"""`report.html`: what a data set holds, to look at. One file, no scripts, nothing from the web."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from ovseg.data.dataset.folder import REPORT, Dataset, DatasetSummary
from ovseg.data.dataset.index import INDEX
from ovseg.download import show_size

SHOWN = 40  # entities listed by frequency
CROSSED = 25  # entities in the table of co-occurrence
_WORDS = np.arange(0, 41, 2)  # edges of the caption lengths shown; the last bar takes the rest

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1f; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse } td, th { padding: 0 .5rem; font-weight: normal }
.bars td:first-child { text-align: right; white-space: nowrap } .bars td:last-child { width: 34rem }
.bar { background: #3b6fb6; height: .85em; border-radius: 2px; min-width: 1px }
.number { text-align: right; font-variant-numeric: tabular-nums }
.heat { font-size: 11px } .heat td { width: 1.7rem; height: 1.5rem; text-align: center; padding: 0 }
.heat th { text-align: right } .heat thead th { writing-mode: vertical-rl; padding: .3rem 0 }
"""


@dataclass
class Statistics:
    """Counts over the pairs of an index.

    `shown` [E] counts pairs per entity; `together` [C, C] counts the pairs that show both of two
    entities, for the frequent ones whose numbers are `crossed` [C].
    """

    shown: np.ndarray
    crossed: np.ndarray
    together: np.ndarray
    words: np.ndarray  # pairs per bin of caption length
    per_pair: Counter[int] = field(default_factory=Counter)  # pairs by number of entities


def write_report(dataset: Dataset, summary: DatasetSummary) -> None:
    """Write `report.html` for a finished data set."""
    planned = np.array(list(summary.entity_captions.values()))
    statistics = gather_statistics(dataset, np.argsort(-planned, kind="stable")[:CROSSED], planned)
    html = render_report(summary, list(summary.entity_captions), statistics)
    dataset.store.write_text(REPORT, html)


def gather_statistics(dataset: Dataset, crossed: np.ndarray, planned: np.ndarray) -> Statistics:
    """One pass over the index, a shard at a time."""
    size = len(crossed)
    found = Statistics(
        np.zeros(len(planned), np.int64),
        crossed,
        np.zeros((size, size), np.int64),
        np.zeros(len(_WORDS), np.int64),
    )
    with dataset.store.open(INDEX) as stream:
        index = pq.ParquetFile(stream)
        for group in range(index.metadata.num_row_groups):
            table = index.read_row_group(group, columns=["caption", "entities"])
            _count(pl.DataFrame(pl.from_arrow(table)), found)
    return found


def _count(pairs: pl.DataFrame, found: Statistics) -> None:
    """Take in the pairs of one shard."""
    words = pairs["caption"].str.count_matches(r"\S+").to_numpy()
    bins = np.minimum(np.digitize(words, _WORDS) - 1, len(_WORDS) - 1)
    found.words += np.bincount(bins, minlength=len(_WORDS))
    named = pairs["entities"].list.unique()
    found.per_pair.update(named.list.len().to_list())
    rows = np.repeat(np.arange(len(pairs)), named.list.len().to_numpy())
    entities = named.explode().drop_nulls().to_numpy().astype(np.int64)
    found.shown += np.bincount(entities, minlength=len(found.shown))
    column = np.full(len(found.shown), -1)
    column[found.crossed] = np.arange(len(found.crossed))
    inside = column[entities] >= 0
    shows = np.zeros((len(pairs), len(found.crossed)), np.float32)
    shows[rows[inside], column[entities[inside]]] = 1
    found.together += (shows.T @ shows).astype(np.int64)


def render_report(summary: DatasetSummary, names: Sequence[str], found: Statistics) -> str:
    """The report as HTML."""
    counts = found.shown
    frequent = sorted(range(len(names)), key=lambda n: (-counts[n], names[n]))
    words = [
        (f"{low} to {low + 1}" if low < _WORDS[-1] else f"{low} and more", int(count))
        for low, count in zip(_WORDS, found.words, strict=True)
    ]
    per_pair = [(f"{n}", found.per_pair[n]) for n in sorted(found.per_pair)]
    sections = [
        _bars("Entities, pairs that show them", [(names[n], counts[n]) for n in frequent[:SHOWN]]),
        _rare(names, counts, frequent),
        _heat("Shown together", [names[n] for n in found.crossed], found.together),
        _bars("Entities per pair", per_pair),
        _bars("Words per caption", words),
        _bars("Pairs without an image, by reason", summary.failures.items()),
        _bars("Captions set aside, by reason", summary.captions_dropped.items()),
    ]
    return (
        "<!DOCTYPE html>\n<html lang='en'><meta charset='utf-8'><title>Data set</title>"
        f"<style>{_STYLE}</style>\n<h1>Data set of {summary.pairs:,} pairs</h1>\n"
        f"<p>{summary.captions_read:,} captions were read, {summary.captions_matched:,} name an "
        f"entity, {summary.pairs:,} have their image; {summary.shards:,} shards, "
        f"{show_size(summary.tar_bytes)}.</p>\n" + "\n".join(sections) + "\n</html>\n"
    )


def _bars(title: str, rows: Iterable[tuple[str, int]]) -> str:
    shown = [(name, int(count)) for name, count in rows if count]
    if not shown:
        return ""
    most = max(count for _, count in shown)
    lines = "".join(
        f"<tr><td>{escape(name)}<td class='number'>{count:,}"
        f"<td><div class='bar' style='width:{100 * count / most:.1f}%'></div>\n"
        for name, count in shown
    )
    return f"<h2>{escape(title)}</h2>\n<table class='bars'>\n{lines}</table>"


def _rare(names: Sequence[str], counts: np.ndarray, frequent: Sequence[int]) -> str:
    rest = [f"{escape(names[n])} {counts[n]:,}" for n in frequent[SHOWN : 10 * SHOWN]]
    return f"<p>Fewer pairs show: {', '.join(rest)}.</p>" if rest else ""


def _heat(title: str, names: Sequence[str], together: np.ndarray) -> str:
    """A table coloured by the share of the row's pairs that also show the column's entity."""
    present = [n for n in range(len(names)) if together[n, n]]
    if len(present) < 2:
        return ""
    head = "".join(f"<th>{escape(names[n])}" for n in present)
    lines = []
    for row in present:
        cells = []
        for column in present:
            share = 0.0 if row == column else together[row, column] / together[row, row]
            label = f"{100 * share:.0f}" if share >= 0.005 else ""
            shade = f"rgba(59,111,182,{min(1.0, 2 * share):.2f})"
            cells.append(f"<td style='background:{shade}'>{label}")
        lines.append(f"<tr><th>{escape(names[row])}{''.join(cells)}\n")
    return (
        f"<h2>{escape(title)}</h2>\n<p>Of the pairs that show the row's entity, the percentage "
        f"that also shows the column's.</p>\n<table class='heat'><thead><tr><th>{head}</thead>\n"
        f"{''.join(lines)}</table>"
    )
