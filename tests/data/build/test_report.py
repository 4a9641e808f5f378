"""The report shows the counts, and text from captions and files cannot become markup."""

from collections import Counter

import numpy as np

from ovseg.data.build.report import Statistics, render_report
from ovseg.data.dataset.folder import DatasetSummary


def test_counts_and_escaping() -> None:
    together = np.array([[40, 10, 0], [10, 20, 0], [0, 0, 0]])
    counts = np.diagonal(together)
    found = Statistics(
        counts, np.arange(3), together, np.eye(21, dtype=np.int64)[3] * 50, Counter({1: 40, 2: 10})
    )
    summary = DatasetSummary(".", 60, {"<b>odd</b>": 3}, 57, 1, 1, 50, 5000, 6000, {"HTTP 404": 7})
    html = render_report(summary, ["dog", "<script>", "cat"], found)
    assert "Data set of 50 pairs" in html and "HTTP 404<td class='number'>7" in html
    assert "<script>" not in html and "<b>odd" not in html and "&lt;script&gt;" in html
    assert "6 to 7<td class='number'>50" in html
    # A quarter of the dogs come with the other; half of those with a dog.
    assert ">25\n" in html and ">50<td" in html
