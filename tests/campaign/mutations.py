"""Damaged copies of files, drawn from a seed.

Bytes are damaged where they stand; documents (JSON) are also damaged in their meaning, entry by
entry, since most damage to bytes only shows that a parser finds it. Archives and compressed files
are packed again after the damage, so that it arrives inside.
"""

import copy
import gzip
import json
import lzma
import struct
from random import Random
from typing import Any

NUMBERS = (0, -1, 1, 255, 256, 65_535, 2**31 - 1, 2**31, 2**53 + 1, 2**63, 10**30, 10**400)
VALUES: tuple[Any, ...] = (
    *NUMBERS, 1.5, 1e308, float("nan"), float("inf"), None, True, "", "a", "\ud800", "\x00",
    "../../x", "/etc/passwd", "[/b]", "\x1b[31m", "x" * 70_000, [], {}, [[]], {"a": {}}, [None] * 9,
)  # fmt: skip
TEXTS = (
    b"\xff", b"\x00", b"\r", b"\n", b"\t", b'"', b"'", b"\\ud800", b"[" * 3000, b"{" * 3000,
    b"1" * 5000, b"\xef\xbb\xbf", "²".encode(), b"..", b"NaN", b"-1", b"1e999", b"\x1b[2J",
)  # fmt: skip


def damaged(data: bytes, random: Random) -> bytes:
    """A copy with one to four changes of its bytes."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        out = random.choice(_CHANGES)(out, random)
    return bytes(out)


def repacked(data: bytes, random: Random) -> bytes:
    """A gzip or xz file with the damage inside, or on its shell."""
    if random.random() < 0.3:
        return damaged(data, random)
    module: Any = gzip if data[:2] == b"\x1f\x8b" else lzma
    return bytes(module.compress(damaged(module.decompress(data), random)))


def damaged_json(data: bytes, random: Random) -> bytes:
    """A document with one to three entries replaced, removed, doubled or swapped."""
    if random.random() < 0.25:
        return damaged(data, random)
    document = json.loads(data)
    for _ in range(random.randint(1, 3)):
        document = _change_document(document, random)
    return json.dumps(document, default=str).encode("utf-8", "surrogatepass")


def damaged_header(data: bytes, random: Random) -> bytes:
    """A safetensors file whose header was damaged in its meaning and fits its length again."""
    if random.random() < 0.3 or len(data) < 8:
        return damaged(data, random)
    (length,) = struct.unpack("<Q", data[:8])
    header = damaged_json(data[8 : 8 + length], random)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _flip(out: bytearray, random: Random) -> bytearray:
    if out:
        out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    return out


def _cut(out: bytearray, random: Random) -> bytearray:
    return out[: random.randrange(len(out) + 1)]


def _insert(out: bytearray, random: Random) -> bytearray:
    at = random.randrange(len(out) + 1)
    return out[:at] + random.choice(TEXTS) + out[at:]


def _overwrite(out: bytearray, random: Random) -> bytearray:
    """A field of four or eight bytes with a number at the edge of something."""
    number = random.choice(NUMBERS[:10])
    size = random.choice((1, 2, 4, 8))
    field = (number % (1 << 8 * size)).to_bytes(size, random.choice(("little", "big")))
    at = random.randrange(len(out) + 1)
    return out[:at] + field + out[at + size :]


def _repeat(out: bytearray, random: Random) -> bytearray:
    first, last = sorted(random.randrange(len(out) + 1) for _ in range(2))
    return out[:last] + out[first:last] * random.choice((1, 1, 8)) + out[last:]


def _remove(out: bytearray, random: Random) -> bytearray:
    first = random.randrange(len(out) + 1)
    return out[:first] + out[first + random.randint(1, 64) :]


def _digits(out: bytearray, random: Random) -> bytearray:
    """A decimal number in text replaced."""
    places = [at for at, byte in enumerate(out[:65_536]) if 48 <= byte <= 57]
    if not places:
        return _overwrite(out, random)
    at = random.choice(places)
    return out[:at] + str(random.choice(NUMBERS)).encode() + out[at + 1 :]


_CHANGES = (_flip, _flip, _cut, _insert, _overwrite, _overwrite, _repeat, _remove, _digits)


def _change_document(document: Any, random: Random) -> Any:
    """The document with one value, somewhere in it, changed."""
    path, node = [], document
    while isinstance(node, dict | list) and node and (not path or random.random() < 0.8):
        key = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
        path.append((node, key))
        node = node[key]
    if not path:
        return _value(random)
    parent, key = path[-1]
    what = random.randrange(5)
    if what == 0:
        del parent[key]
    elif what == 1 and isinstance(parent, dict):
        parent[str(random.choice(VALUES))] = parent.pop(key)
    elif what == 2 and isinstance(parent, list):
        parent.append(parent[key])
    elif what == 3 and len(path) > 1:
        parent[key] = json.loads(json.dumps(path[0][0], default=str)) if _small(document) else None
    else:
        parent[key] = _value(random)
    return document


def _value(random: Random) -> Any:
    """One of `VALUES`, whose lists may be changed later on."""
    return copy.deepcopy(random.choice(VALUES))


def _small(document: Any) -> bool:
    return len(str(document)) < 100_000
