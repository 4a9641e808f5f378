"""One line of questions to one model: those that are alike are answered together."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Waiting(Generic[Key, Item, Answer]):
    key: Key
    item: Item
    answer: "asyncio.Future[Answer]"


class Batcher(Generic[Key, Item, Answer]):
    """Collects what is asked while the model is at work, so that a batch is what has come since.

    Nothing waits for others to come: a lone question is answered at once. The oldest goes first and
    takes along those with its key. Whoever stops waiting leaves the line.

    Args:
        work: in a thread of its own, from a key and items with it to an answer, or what is wrong,
            for each.
        most: items that are worked on together.
    """

    def __init__(
        self,
        work: Callable[[Key, Sequence[Item]], Sequence[Answer | Exception]],
        most: int,
    ) -> None:
        self._work = work
        self._most = most
        self._line: deque[_Waiting[Key, Item, Answer]] = deque()
        self._some = asyncio.Event()

    async def ask(self, key: Key, item: Item) -> Answer:
        """The answer, when its turn has come; raises what is wrong with the item or the batch."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._line.append(_Waiting(key, item, answer))
        self._some.set()
        return await answer

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "ovseg-model") as thread:
            while True:
                await self._some.wait()
                if not (batch := self._next()):
                    self._some.clear()
                    continue
                items = [each.item for each in batch]
                try:
                    answers = await loop.run_in_executor(thread, self._work, batch[0].key, items)
                except Exception as error:  # whatever it is, it is for those who asked
                    answers = [error] * len(batch)
                for each, answer in zip(batch, answers, strict=True):
                    _hand_over(each.answer, answer)

    def _next(self) -> list[_Waiting[Key, Item, Answer]]:
        """The oldest and those like it, taken out of the line."""
        waiting = [each for each in self._line if not each.answer.done()]
        alike = [each for each in waiting if each.key == waiting[0].key][: self._most]
        taken = {id(each) for each in alike}
        self._line = deque(each for each in waiting if id(each) not in taken)
        return alike


def _hand_over(future: "asyncio.Future[Answer]", answer: Answer | Exception) -> None:
    if future.done():  # nobody waits any more
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
