"""Who may write where: one run at a time holds a folder or a file, and loses it however it ends.

Locks are the system's own, on an open file: a process that is killed holds nothing any more. They
reach as far as the machine, or the machines of one network file system that has such locks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ovseg.errors import DataError, UsageError
from ovseg.files import local_path, try_lock

LOCK = ".ovseg.lock"
"""The name of a folder's lock, of a file's the end; it is there while the output is held."""


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Make a folder, and keep every other run out of it; one that stays empty goes again.

    Raises:
        UsageError: another run holds it, or it is no path of this machine.
        DataError: it cannot be made or written to.
    """
    local_path(folder)
    was_there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        with _holding(folder / LOCK, folder):
            yield
    finally:
        if not was_there:
            with suppress(OSError):  # something is in it now
                folder.rmdir()


@contextmanager
def holding_file(path: Path) -> Iterator[None]:
    """Keep every other run from writing a file, or a folder that is replaced as a whole.

    Raises:
        UsageError: another run writes it, or it is no path of this machine.
        DataError: it cannot be written.
    """
    local_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    with _holding(path.with_name(f".{path.name}{LOCK}"), path):
        yield


@contextmanager
def _holding(lock: Path, output: Path) -> Iterator[None]:
    """Hold a lock's file, which is removed at the end by whoever holds it."""
    handle = _taken(lock, output)
    _held.add(handle)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        _held.discard(handle)
        os.close(handle)


def _let_go() -> None:
    """In a forked child: a lock is held until every copy of its handle is closed."""
    for handle in _held:
        os.close(handle)
    _held.clear()


_held: set[int] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _taken(lock: Path, output: Path) -> int:
    """The lock's file, open and locked."""
    while True:
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(lock, flags, 0o666)
        except OSError as error:
            raise DataError(f"{output}: cannot be written: {error.strerror or error}") from error
        if not try_lock(handle):
            os.close(handle)
            raise UsageError(
                f"{output}: another run is at work here; wait for it to end, or give another output"
            )
        if _is(lock, handle):
            return handle
        os.close(handle)  # who held it has removed it in between


def _is(path: Path, handle: int) -> bool:
    """Whether an open file is still the one that a path leads to."""
    try:
        there = path.stat()
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(handle))
