"""A process that renders SVGs for another, and may die doing it.

A hostile drawing can overflow the renderer's stack or keep it busy for ever, and neither can be
caught from within. The process holds no open files and may open none: after start-up its limit of
file descriptors is zero, so that no drawing can make it read a file or reach a host.
"""

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

from ovseg.data.cutouts import svg
from ovseg.data.cutouts.naming import Description, Rejected
from ovseg.distributed import deaf_children
from ovseg.errors import DataError

TIMEOUT = 20.0  # seconds; far more than any honest drawing needs
_START_TIMEOUT = 60.0
MEMORY = 2 << 30  # bytes of address space
_WARM_UP = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"><path d="M0 0h1v1z"/></svg>'
)


@dataclass(frozen=True)
class _Answer:
    """What comes back: the words inside the drawing, and its PNG if one was asked for."""

    description: Description
    png: bytes = b""


class Renderer:
    """Renders SVGs in a child process, which is replaced when it hangs or dies.

    A context manager; the child ends with it.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def describe(self, data: bytes) -> Description:
        """The words inside a drawing; errors as for `render`."""
        return self._ask(data, None).description

    def render(self, data: bytes, side: int) -> bytes:
        """PNG of a drawing, its longer side `side` pixels.

        Raises:
            Rejected: with the reason, "takes too long" and "kills the renderer" among them.
            MissingDependencyError: the extra `cutouts` is not installed.
        """
        return self._ask(data, side).png

    def _ask(self, data: bytes, side: int | None) -> "_Answer":
        connection = self._start()
        try:
            connection.send((data, side))
            if not connection.poll(self._timeout):
                self._stop()
                raise Rejected("takes too long")
            answer = connection.recv()
        except (EOFError, OSError) as error:
            self._stop()
            raise Rejected("kills the renderer") from error
        if isinstance(answer, _Answer):
            return answer
        raise Rejected(answer)

    def _start(self) -> Connection:
        if self._connection is not None:
            return self._connection
        svg.render(svg.read_svg(_WARM_UP), 1)  # a missing package is told here, not by a dead child
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with deaf_children():
            self._process.start()
        theirs.close()
        self._connection = ours
        if not ours.poll(_START_TIMEOUT):
            self._stop()
            raise DataError("the process that renders SVGs does not start")
        ours.recv()
        return ours

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._connection = self._process = None


def _serve(connection: Connection) -> None:
    """The child: answer with what was rendered, or with the reason why not."""
    svg.render(svg.read_svg(_WARM_UP), 1)  # imports everything while files may still be opened
    _give_up_rights()
    connection.send("ready")
    while True:
        try:
            data, side = connection.recv()
        except EOFError:
            return
        connection.send(_answer(data, side))


def _answer(data: bytes, side: int | None) -> _Answer | str:
    try:
        drawing = svg.read_svg(data)
        if side is None:
            return _Answer(drawing.description)
        return _Answer(drawing.description, svg.render(drawing, side))
    except Rejected as reason:
        return str(reason)
    except Exception as error:  # the reason reaches the counts; nothing is swallowed
        return f"renderer fault: {type(error).__name__}"


def _give_up_rights() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
