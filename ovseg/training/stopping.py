"""Signals that ask for an end: noted, and obeyed at the next step's boundary."""

import signal
from types import FrameType, TracebackType
from typing import Any

_ASKING = ("SIGTERM", "SIGUSR1")


class StopRequest:
    """Within its context, SIGTERM and SIGUSR1 set `signal` instead of ending the process."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for name in _ASKING:
            number = getattr(signal, name, None)
            if number is not None:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = number
