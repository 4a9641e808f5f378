"""The page of a run: curves of its log, scores, overlays by step; it opens without a network."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ovseg.files import write_text
from ovseg.pages import Curve, line_chart, page, rows

PAGE = "log.html"
_EVERY = 30.0  # seconds between two writings while a run goes on
_PICTURES = 12  # the newest
_CHARTS = (
    ("Losses", ("loss", "contrastive", "entity", "mask", "captions", "words", "structure")),
    ("Gradient norm, before clipping", ("gradient_norm",)),
    ("Learning rate", ("learning_rate",)),
    ("What cosines are multiplied by", ("scale",)),
    ("Data throughput, images a second", ("images_per_second",)),
    ("Share of the time spent waiting for data", ("stall",)),
    ("Groups: entropy of the assignment, 0 to 1", ("assignment_entropy",)),
    ("Groups used by an image", ("groups_used",)),
    ("Samples that could not be read, and steps that were not finite", ("unreadable", "skipped")),
)


class RunPage:
    """Writes `log.html` in a run's folder from what is in it; not oftener than every 30 seconds."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._written = -_EVERY

    def refresh(self, *, at_once: bool = False) -> None:
        """Write the page anew, if it is time or has to be now."""
        now = time.monotonic()
        if at_once or now - self._written >= _EVERY:
            write_text(self._output / PAGE, run_page(self._output))
            self._written = now


def run_page(output: Path) -> str:
    """The page of the run in a folder, from its log.jsonl, scores.jsonl and overlays/."""
    log, scores = _lines(output / "log.jsonl"), _lines(output / "scores.jsonl")
    parts = ['<p class="note">', escape(_summary(log)), "</p>"]
    for title, names in _CHARTS:
        chart = line_chart({name: _curve(log, name) for name in names}, title)
        parts += [f"<h2>{escape(title)}</h2>", chart] if chart else []
    if scores:
        measures = [name for name in scores[-1] if name != "step"]
        parts.append("<h2>Scores, in percent</h2>")
        parts.append(line_chart({name: _curve(scores, name, 100) for name in measures}, "Scores"))
        best = [
            (name, f"{max((y for _, y in _curve(scores, name, 100)), default=0.0):.1f}")
            for name in measures
        ]
        parts.append(rows([("best", ""), *best]))
    parts += _pictures(output)
    return page(f"Training of {output.resolve().name}", parts)


def _summary(log: Sequence[Mapping[str, Any]]) -> str:
    if not log:
        return "Nothing has been logged yet."
    last = log[-1]
    return f"Step {last['step']:,}, epoch {last.get('epoch', 0):.2f}."


def _lines(path: Path) -> list[Mapping[str, Any]]:
    """The objects of a file of ours that may be growing; half a line at its end is left out."""
    found: list[Mapping[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                found.append(value)
    return found


def _curve(lines: Iterable[Mapping[str, Any]], name: str, times: float = 1.0) -> Curve:
    """The values of a key, over the steps; none where they are all 0 or not there."""
    points = [
        (float(line["step"]), times * line[name])
        for line in lines
        if isinstance(line.get(name), int | float)
    ]
    return points if any(y for _, y in points) else []


def _pictures(output: Path) -> list[str]:
    """The newest overlays, which lie beside the page."""
    found = sorted((output / "overlays").glob("step-*.png"), reverse=True)[:_PICTURES]
    if not found:
        return []
    figures = [
        f'<figure><img loading="lazy" src="overlays/{quote(path.name)}" alt="">'
        f"<figcaption>{escape(path.stem)}</figcaption></figure>"
        for path in found
    ]
    return ["<h2>Overlays, the newest first</h2>", *figures]
