"""The report's charts."""

import itertools
import re

import pytest

from ovseg.evaluation.report.charts import sweep_line
from ovseg.evaluation.result import Swept
from ovseg.inference.protocol import swept_thresholds


@pytest.mark.parametrize("threshold", [0.4, 0.004])
def test_thresholds_of_a_sweep_lie_evenly_on_their_axis(threshold: float) -> None:
    points = [Swept(value, 0.3) for value in swept_thresholds(threshold)]
    drawn = sweep_line(points, threshold)
    across = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    assert len(across) == 19 and across[0] >= 48 and across[-1] <= 628
    steps = [after - before for before, after in itertools.pairwise(across)]
    assert steps == pytest.approx([steps[0]] * 18, abs=0.6)
    in_use = float(re.findall(r'<line x1="([\d.]+)" x2="\1" y1="8"', drawn)[0])
    assert in_use == pytest.approx(across[7 if threshold == 0.4 else 9], abs=0.1)
    assert f"in use: {threshold:g}" in drawn
