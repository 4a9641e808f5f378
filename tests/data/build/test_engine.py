"""Engines run functions in order and say what went wrong."""

import os
import pickle

import pytest

from ovseg.data.build.engine import Engine
from ovseg.errors import DataError, MissingDependencyError, UsageError


def _double(number: int) -> int:
    return 2 * number


def _die(number: int) -> int:
    os._exit(number)


@pytest.mark.slow
def test_processes_keep_the_order() -> None:
    assert list(Engine(workers=2).run(_double, range(20))) == list(range(0, 40, 2))


@pytest.mark.slow
def test_a_worker_that_is_killed() -> None:
    with pytest.raises(DataError, match="fewer --workers"):
        list(Engine(workers=2).run(_die, [9, 9]))


def test_errors_come_back_from_workers() -> None:
    for error in (MissingDependencyError("spacy", "data", "tagging"), DataError("no rows")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))


def test_bad_engines() -> None:
    with pytest.raises(UsageError, match="unknown engine"):
        Engine("slurm")
    with pytest.raises(UsageError, match="workers"):
        Engine(workers=-1)
    assert Engine().processes >= 1
