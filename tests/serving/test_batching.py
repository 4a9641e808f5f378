"""The line before the model."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from ovseg.serving.batching import Batcher


class Recorder:
    """Work that waits until it is let go, and writes down what came together."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.go = threading.Event()

    def __call__(self, key: str, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append((key, list(items)))
        if key == "broken":
            raise RuntimeError("no such model")
        assert self.go.wait(10)
        return [ValueError(f"{item} is odd") if item % 2 else 10 * item for item in items]


async def answered(work: Recorder, most: int, questions: Sequence[tuple[str, int]]) -> list[object]:
    """What each is told, where all come while the first is worked on."""
    line: Batcher[str, int, int] = Batcher(work, most)
    running = asyncio.create_task(line.run())
    asked = [asyncio.create_task(line.ask(*question)) for question in questions]
    await asyncio.sleep(0.01)
    work.go.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    running.cancel()
    return list(answers)


def test_those_alike_are_answered_together_and_the_oldest_first() -> None:
    work = Recorder()
    questions = [("cat", 0), ("dog", 2), ("cat", 4), ("dog", 6), ("cat", 8), ("cat", 10)]
    answers = asyncio.run(answered(work, 3, questions))
    assert answers == [0, 20, 40, 60, 80, 100]
    assert work.batches == [("cat", [0, 4, 8]), ("dog", [2, 6]), ("cat", [10])]


def test_what_is_wrong_with_one_is_its_own_and_of_a_batch_is_everybodys() -> None:
    work = Recorder()
    questions = [("cat", 1), ("cat", 2), ("broken", 3), ("broken", 4), ("cat", 6)]
    answers = asyncio.run(answered(work, 8, questions))
    assert [type(each) for each in answers] == [ValueError, int, RuntimeError, RuntimeError, int]


def test_who_leaves_is_not_worked_for() -> None:
    work = Recorder()

    async def impatient() -> int:
        line: Batcher[str, int, int] = Batcher(work, 1)
        running = asyncio.create_task(line.run())
        first = asyncio.create_task(line.ask("cat", 2))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(line.ask("cat", 4), 0.01)
        work.go.set()
        last = await line.ask("cat", 6)
        running.cancel()
        return await first + last

    assert asyncio.run(impatient()) == 80
    assert work.batches == [("cat", [2]), ("cat", [6])]
