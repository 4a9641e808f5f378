"""The curve that teaching is measured by shows what was measured."""

import re
from argparse import Namespace
from itertools import pairwise
from pathlib import Path

from ovseg.evaluation.sets.catalogue import open_set
from tests.teaching.photos import painted_set
from tools.growth_plot import drawn
from tools.measure_teach import curves, wanted


def test_words_lie_across_and_seeds_are_averaged() -> None:
    rows = [
        {"what": "words", "photos": 0, "mIoU": 5.0},
        {"what": "head", "photos": 1, "mIoU": 6.0},
        {"what": "head", "photos": 10, "mIoU": 8.0},
        {"what": "head", "photos": 10, "mIoU": 12.0},
    ]
    plot = curves(rows)
    words, head = re.findall(r'<polyline points="([^"]*)"', plot)
    assert len({point.split(",")[1] for point in words.split()}) == 1
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', plot)
    assert [",".join(each) for each in dots] == head.split()
    top, bottom = 10, 286  # the levels of 10 % and of 0
    assert [float(y) for _, y in dots] == [round(bottom - 0.6 * 276, 1), top]


def test_names_do_not_cover_each_other() -> None:
    near = {f"line {n}": [(1, 0.1), (40, 0.5 + n / 1000)] for n in range(4)}
    plot = drawn(near, near, "near")
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)" fill="#\w+">line', plot))
    assert min(b - a for a, b in pairwise(heights)) >= 13.9


def test_every_second_class_may_be_left_untaught(tmp_path: Path) -> None:
    teaching = open_set("folder", painted_set(tmp_path, [0], ["background", *"abcd"]), None)
    for untaught, taught in {"even": ["a", "c"], "odd": ["b", "d"], None: None}.items():
        assert wanted(Namespace(untaught=untaught, classes=""), teaching) == taught
