"""Files as `torch.save` lays them out, with any pickle inside."""

import zipfile
from collections.abc import Mapping
from pathlib import Path


def write_archive(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
    prefix: str = "a",
) -> Path:
    """A zip with this pickle and these storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{prefix}/data.pkl", pickled)
        archive.writestr(f"{prefix}/version", "3\n")
        archive.writestr(f"{prefix}/byteorder", "little")
        for key, numbers in (storages or {}).items():
            archive.writestr(f"{prefix}/data/{key}", numbers)
    return path


def short(text: str) -> bytes:
    """Opcodes that push a string."""
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def named(module: str, name: str) -> bytes:
    """Opcodes that push a class or function."""
    return f"c{module}\n{name}\n".encode()


def whole(number: int) -> bytes:
    """Opcodes that push an integer."""
    return b"J" + number.to_bytes(4, "little", signed=True)


def tupled(*items: bytes) -> bytes:
    """Opcodes that push a tuple."""
    return b"(" + b"".join(items) + b"t"


def program(body: bytes) -> bytes:
    """A whole pickle of protocol 2."""
    return b"\x80\x02" + body + b"."


def storage(key: str = "0", count: int = 4, kind: bytes = named("torch", "FloatStorage")) -> bytes:
    """Opcodes that push a storage."""
    return tupled(short("storage"), kind, short(key), short("cpu"), whole(count)) + b"Q"


def tensor(
    source: bytes | None = None,
    offset: bytes = whole(0),
    shape: bytes = tupled(whole(4)),
    strides: bytes = tupled(whole(1)),
) -> bytes:
    """Opcodes that push a tensor."""
    hooks = named("collections", "OrderedDict") + b")R"
    call = tupled(source or storage(), offset, shape, strides, b"\x89", hooks)
    return named("torch._utils", "_rebuild_tensor_v2") + call + b"R"


def state(value: bytes, key: str = "img_encoder.pos_embed") -> bytes:
    """A pickle of {'model': {key: value}}."""
    return program(b"}" + short("model") + b"}" + short(key) + value + b"ss")
