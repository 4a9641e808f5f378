"""Pictures as people hand them over: files, Pillow images, arrays, and what could not be read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from ovseg.data.brightness import to_eight_bits
from ovseg.data.images import Pixels, flatten, read_bytes, read_image, refuse_url, to_rgb
from ovseg.errors import DataError, OvsegError, UsageError


class Readable(Protocol):
    """A file that was opened for its bytes."""

    def read(self) -> bytes: ...


class ArrayLike(Protocol):
    """What NumPy, torch, JAX and TensorFlow call an array or a tensor."""

    @property
    def shape(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...


Item = TypeVar("Item")
ImageLike = (
    str | PathLike[str] | bytes | bytearray | memoryview | Readable | Image.Image | ArrayLike
)


@dataclass(frozen=True)
class Failure:
    """An image that could not be segmented, and why."""

    path: Path
    error: OvsegError


def to_pixels(image: ImageLike, where: str = "the image") -> Pixels:
    """An image given in any way as RGB, uint8 [H, W, 3].

    Args:
        image: a file's path, bytes or open file, a Pillow image, or an array: [H, W], or [H, W, C]
            with one (grey), three (RGB) or four channels (RGBA, on white), uint8, floats in 0..1 or
            other numbers. Tensors of torch may also be [C, H, W], as torchvision makes them.
        where: what to call an image that has no name in messages.

    Raises:
        UsageError: nothing of that, or an array in another layout.
        DataError: the file cannot be read.
    """
    if isinstance(image, (str, PathLike)):
        if isinstance(image, str):
            refuse_url(image)
        return read_image(Path(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return read_bytes(bytes(image), where)
    if isinstance(image, Image.Image):
        return _from_pillow(image, where)
    if hasattr(image, "read"):
        return read_bytes(_content(image, where), where)
    if hasattr(image, "shape") and hasattr(image, "dtype"):
        return _from_array(_as_numpy(image), where)
    raise UsageError(
        f"{where}: {type(image).__name__} is no image: give a path, bytes, an open file, a Pillow "
        "image, an array or a tensor"
    )


def is_many(images: Any) -> bool:
    """Whether this is a list or an iterator of images, and not one."""
    if isinstance(images, (str, PathLike, bytes, bytearray, memoryview, Image.Image)):
        return False
    if hasattr(images, "read") or hasattr(images, "shape"):
        return False
    return isinstance(images, Iterable)


def _content(stream: Any, where: str) -> bytes:
    content = stream.read()
    if not isinstance(content, bytes):
        raise UsageError(f"{where}: the file was opened for text: open it with mode 'rb'")
    return content


def _from_pillow(image: Image.Image, where: str) -> Pixels:
    try:
        return to_rgb(image, where, _file_of(image))
    except OSError as error:  # its file is read only now
        raise DataError(f"{where}: damaged image ({error})") from error


def _file_of(image: Image.Image) -> Path | None:
    """The file of a Pillow image that is not read yet."""
    name = getattr(image, "filename", "")
    return Path(name) if name and Path(name).is_file() else None


def _as_numpy(image: Any) -> np.ndarray:
    """Any library's array, on whatever device, as [H, W] or [H, W, C]."""
    if not type(image).__module__.startswith("torch"):
        return np.asarray(image)
    tensor = image.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has none
        tensor = tensor.float()
    array: np.ndarray = tensor.numpy()
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] in (1, 3, 4) else array


def _from_array(values: np.ndarray, where: str) -> Pixels:
    _check_layout(values, where)
    if values.dtype == np.uint8 and values.shape[2:] == (3,):
        return values
    pixels = to_eight_bits(values, where)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 4:
        return np.array(flatten(Image.fromarray(np.ascontiguousarray(pixels))))
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _check_layout(values: np.ndarray, where: str) -> None:
    shape, kind = list(values.shape), values.dtype
    given = f"{where}: an array of {kind} {shape}"
    if kind != np.bool_ and kind.kind not in "iuf":
        raise UsageError(f"{given} holds no brightness: give uint8, or floats in 0..1")
    if 0 in shape:
        raise UsageError(f"{given} is empty")
    if values.ndim == 2 or (values.ndim == 3 and shape[2] in (1, 3, 4)):
        return
    if values.ndim == 3 and shape[0] in (1, 3, 4):
        raise UsageError(f"{given} has its channels first: give array.transpose(1, 2, 0)")
    if values.ndim == 4:
        raise UsageError(f"{given} holds several images: give list(array)")
    raise UsageError(f"{given} is no image: give [H, W], or [H, W, 3] in RGB")


def load(path: Path, read: Callable[[Path], Pixels] = read_image) -> tuple[Path, Pixels] | Failure:
    """Read a file; what is wrong with it comes back as a value, so that the others go on."""
    try:
        return path, read(path)
    except OvsegError as error:
        return Failure(path, error)


def chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items in lists of `size`, the last one shorter."""
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
