"""The hash that draws: a number, an array and the published sequence agree."""

import numpy as np

from ovseg.data.splitmix import mix, uniform

GOLDEN = 0x9E3779B97F4A7C15


def test_it_is_splitmix64() -> None:
    # The first numbers of the generator's reference implementation from the seed 0.
    states = [GOLDEN * step % 2**64 for step in (1, 2, 3)]
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [mix(state) for state in states] == published
    assert mix(np.array(states, np.uint64)).tolist() == published


def test_numbers_depend_on_seed_row_and_stream_alone() -> None:
    rows = np.arange(1000)
    drawn = uniform(3, rows, 0)
    assert np.array_equal(drawn[500:], uniform(3, rows[500:], 0))
    assert drawn.min() >= 0 and drawn.max() < 1 and abs(drawn.mean() - 0.5) < 0.03
    assert not np.array_equal(drawn, uniform(4, rows, 0))
    assert not np.array_equal(drawn, uniform(3, rows, 1))
