"""Work cut into pieces whose results are kept, so that it can stop at any moment and go on.

A piece's result is one JSON file, written when everything it stands for is on disk. Pieces do not
know of each other, so that neither their order nor the number of processes shows in any output.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from ovseg.data.workers import Progress, map_in_processes
from ovseg.documents import read_json
from ovseg.errors import DataError
from ovseg.files import write_text

Arguments = TypeVar("Arguments")


@dataclass(frozen=True)
class Piece(Generic[Arguments]):
    """One piece of work.

    Attributes:
        record: file its result is kept in.
        arguments: what the function is called with; must be picklable.
        items: how much of the stage it is, for progress.
    """

    record: Path
    arguments: Arguments
    items: int


def run_pieces(
    stage: str,
    pieces: Sequence[Piece[Arguments]],
    function: Callable[[Arguments], Any],
    workers: int,
    progress: Progress | None = None,
) -> list[Any]:
    """Results of `function` on every piece, in their order; those already recorded are read.

    Args:
        function: importable, returns what JSON can hold.
        workers: processes; 1 works in this one.

    Raises:
        DataError: a worker process died.
    """
    total = sum(piece.items for piece in pieces)
    waiting = [piece for piece in pieces if not piece.record.exists()]
    done = total - sum(piece.items for piece in waiting)

    def report(piece: Piece[Arguments] | None) -> None:
        nonlocal done
        done += piece.items if piece else 0
        if progress:
            progress(stage, done, total)

    report(None)
    if workers <= 1 or len(waiting) <= 1:
        for piece in waiting:
            _run(function, piece)
            report(piece)
    else:
        run = partial(_run, function)
        done_pieces = map_in_processes(run, waiting, min(workers, len(waiting)))
        for piece, _ in zip(waiting, done_pieces, strict=True):
            report(piece)
    return [_recorded(piece.record) for piece in pieces]


def _recorded(path: Path) -> Any:
    try:
        return read_json(path)
    except DataError as error:
        raise DataError(f"{error}: remove it and run again") from error


def _run(function: Callable[[Arguments], Any], piece: Piece[Arguments]) -> None:
    write_text(piece.record, json.dumps(function(piece.arguments)))
