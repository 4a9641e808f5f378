"""JSON, TOML and text that nobody has checked: bounded in every direction, and one clear error.

The parsers of the standard library raise what they like on hostile input (RecursionError for 3,000
brackets, ValueError for 5,000 digits), take minutes for a key of a million parts, and return half
characters that no file can hold. Here a document is read up to a number of bytes, and what comes
out has bounded depth and numbers and can be written again. Every fault is an `OvsegError` that
begins with where it is.
"""

import json
import re
import stat
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ovseg.errors import DataError, OvsegError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

_PIECE = 1 << 20
_MOST_DOTS = 256  # in a key of TOML: its parser takes the square of them
_STRINGS = re.compile(r""""(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")


@dataclass(frozen=True)
class Bounds:
    """What a document may take at most.

    Attributes:
        size: bytes of its text.
        depth: lists and objects in each other.
        digits: of a whole number.
        halves: whether half a character, which JSON can spell (`"\\ud800"`), is let through,
            because the reader judges entry by entry.
    """

    size: int = 16 << 20
    depth: int = 64
    digits: int = 40
    halves: bool = False


BOUNDS = Bounds()


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""


class TooLongError(ValueError):
    """A stream has more bytes than were asked for."""


class _Unfit(ValueError):
    """A document is beyond its bounds; the message says which."""


def read_stream(stream: Readable, limit: int) -> bytes:
    """All bytes of a stream, of which nobody need know how many they will be.

    Raises:
        TooLongError: they are more than `limit`; no more than that were read.
    """
    pieces: list[bytes] = []
    left = limit + 1
    while left > 0 and (piece := stream.read(min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise TooLongError(f"above {_shown(limit)}")
    return b"".join(pieces)


def read_bytes(path: Path, limit: int, error: type[OvsegError] = DataError) -> bytes:
    """The bytes of a file.

    Raises:
        OvsegError: of the kind `error`: it is missing, unreadable, above `limit` bytes, or a pipe,
            for which one could wait for ever (those that a shell makes, in /dev, are read).
    """
    try:
        status = path.stat()
        if stat.S_ISFIFO(status.st_mode) and not str(path).startswith("/dev/"):
            raise error(f"{path}: a pipe, not a file")
        with path.open("rb") as stream:
            return read_stream(stream, limit)
    except FileNotFoundError as cause:
        raise error(f"{path}: no such file") from cause
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror or cause})") from cause
    except ValueError as cause:  # too long, or NUL in the name
        raise error(f"{path!s}: {cause}") from cause


def read_text(path: Path, limit: int = BOUNDS.size, error: type[OvsegError] = DataError) -> str:
    """The text of a UTF-8 file, without the mark that some programs begin it with.

    Raises:
        OvsegError: as `read_bytes`, or it is not UTF-8.
    """
    return decode_text(read_bytes(path, limit, error), str(path), error)


def decode_text(content: bytes, where: str, error: type[OvsegError] = DataError) -> str:
    """UTF-8 as text; `where` names it in the error."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(f"{where}: not UTF-8 ({cause.reason} at byte {cause.start})") from cause


def read_json(path: Path, bounds: Bounds = BOUNDS, error: type[OvsegError] = DataError) -> Any:
    """What a file of JSON holds.

    Raises:
        OvsegError: of the kind `error`, as `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(path, bounds.size, error), str(path), bounds, error)


def parse_json(
    content: bytes | str, where: str, bounds: Bounds = BOUNDS, error: type[OvsegError] = DataError
) -> Any:
    """What a text of JSON means; `where` names it in the error.

    Raises:
        OvsegError: of the kind `error`: it is no JSON, not UTF-8, or beyond its bounds.
    """

    def integer(digits: str) -> int:
        if len(digits) > bounds.digits:
            raise _Unfit(f"a number of {len(digits)} digits")
        return int(digits)

    text = _text(content, where, bounds, error)
    try:
        value = json.loads(text, parse_int=integer)
        _judge(value, bounds)
    except RecursionError as cause:
        raise error(f"{where}: nested too deeply") from cause
    except _Unfit as cause:
        raise error(f"{where}: {cause}") from cause
    except ValueError as cause:
        raise error(f"{where}: no JSON ({cause})") from cause
    return value


def parse_object(
    content: bytes | str, where: str, bounds: Bounds = BOUNDS, error: type[OvsegError] = DataError
) -> dict[str, Any]:
    """A JSON object; errors as `parse_json`, and where it is something else."""
    value = parse_json(content, where, bounds, error)
    if not isinstance(value, dict):
        raise error(f"{where}: holds {_kind(value)} where a JSON object should be")
    return value


def read_object(
    path: Path, bounds: Bounds = BOUNDS, error: type[OvsegError] = DataError
) -> dict[str, Any]:
    """The JSON object in a file; errors as `read_bytes` and `parse_object`."""
    return parse_object(read_bytes(path, bounds.size, error), str(path), bounds, error)


def read_toml(
    path: Path, bounds: Bounds = BOUNDS, error: type[OvsegError] = DataError
) -> dict[str, Any]:
    """What a file of TOML holds.

    Raises:
        OvsegError: of the kind `error`, as `read_bytes` and `parse_toml`.
    """
    return parse_toml(read_bytes(path, bounds.size, error), str(path), bounds, error)


def parse_toml(
    content: bytes | str, where: str, bounds: Bounds = BOUNDS, error: type[OvsegError] = DataError
) -> dict[str, Any]:
    """What a text of TOML means; `where` names it in the error.

    Raises:
        OvsegError: of the kind `error`: it is no TOML, not UTF-8, or beyond its bounds.
    """
    text = _text(content, where, bounds, error)
    try:
        _require_short_keys(text)
        values = tomllib.loads(text)
        _judge(values, bounds)
    except RecursionError as cause:
        raise error(f"{where}: nested too deeply") from cause
    except _Unfit as cause:
        raise error(f"{where}: {cause}") from cause
    except ValueError as cause:  # its own error is one, and so is int's
        raise error(f"{where}: no TOML ({cause})") from cause
    return values


def fit(kind: type[T], value: Any, where: str, error: type[OvsegError] = DataError) -> T:
    """A value of JSON or TOML as a dataclass or model, its types checked, its other keys left out.

    Raises:
        OvsegError: of the kind `error`: something is missing or not of its type; says what.
    """
    from pydantic import ValidationError  # slow to import, and few need it

    wanted: Any = kind
    try:
        found: T = _adapter(wanted).validate_python(value)
        return found
    except ValidationError as cause:
        first = cause.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise error(f"{where}: {place}: {first['msg']}") from cause


@lru_cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def digits(text: str, most: int = 18) -> int | None:
    """A whole number of at most so many ASCII digits; None for all else.

    `str.isdigit` also says yes to superscripts, of which `int` makes nothing.
    """
    return int(text) if re.fullmatch(rf"[0-9]{{1,{most}}}", text) else None


def _text(content: bytes | str, where: str, bounds: Bounds, error: type[OvsegError]) -> str:
    if len(content) > bounds.size:
        raise error(f"{where}: above {_shown(bounds.size)}")
    return content if isinstance(content, str) else decode_text(content, where, error)


def _require_short_keys(text: str) -> None:
    """Dots that are not within a string stand in keys and numbers."""
    for line in text.split("\n"):
        if line.count(".") <= _MOST_DOTS:
            continue
        if any(part.count(".") > _MOST_DOTS for part in _STRINGS.sub('""', line).split("=")):
            raise _Unfit(f"a key of more than {_MOST_DOTS} parts")


def _judge(value: Any, bounds: Bounds) -> None:
    """Raise `_Unfit` where a value is nested too deeply, or a leaf is beyond bounds."""
    level: list[Any] = [[value]]
    for _ in range(bounds.depth + 1):
        inner: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                for key in node:
                    _judge_leaf(key, bounds)
            for child in node.values() if isinstance(node, dict) else node:
                if isinstance(child, (dict, list)):
                    inner.append(child)
                else:
                    _judge_leaf(child, bounds)
        if not inner:
            return
        level = inner
    raise _Unfit(f"nested more than {bounds.depth} deep")


def _judge_leaf(value: Any, bounds: Bounds) -> None:
    kind = type(value)
    if kind is str and not (bounds.halves or value.isascii()):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise _Unfit(f"half a character ({value[error.start]!r}), which is no text") from error
    elif kind is int and value.bit_length() > 4 * bounds.digits:  # TOML's may be hexadecimal
        raise _Unfit("a number of too many digits")


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size:,} bytes"
