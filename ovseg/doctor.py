"""What an installation has, what it lacks, and what is broken in it."""

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from ovseg.errors import OvsegError
from ovseg.files import cache_folder
from ovseg.version import __version__

State = Literal["ok", "absent", "broken"]
_NAME = "ovseg"
_EXTRAS = (
    *("torch", "onnx", "openvino", "data", "download", "train", "eval", "export", "cutouts"),
    *("ray", "spark", "video", "serve", "demo", "docs"),
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: versions, packages, devices, caches, models or extras.
        name: of the thing.
        state: `absent` is what nothing here needs; `broken` needs doing something.
        detail: a version, a size, what is missing or what to do.
    """

    topic: str
    name: str
    state: State
    detail: str


def examine() -> list[Finding]:
    """Look at versions, packages, devices, caches, the built-in model, extras; change nothing."""
    return [*_versions(), *_packages(), *_devices(), *_caches(), *_starter(), *_extras()]


def _versions() -> Iterator[Finding]:
    yield Finding("versions", _NAME, "ok", f"{__version__}, {Path(__file__).parent}")
    yield Finding("versions", "python", "ok", f"{platform.python_version()}, {sys.executable}")
    yield Finding("versions", "system", "ok", platform.platform())


def _packages() -> Iterator[Finding]:
    """Those that ovseg cannot do without."""
    try:
        wanted = _requirements("")
    except metadata.PackageNotFoundError:
        yield Finding("packages", _NAME, "broken", "is not installed: pip install .")
        return
    for name, bounds in wanted.items():
        lacking = _lacking(name, bounds)
        detail = lacking or metadata.version(name)
        yield Finding("packages", name, "broken" if lacking else "ok", detail)


def _extras() -> Iterator[Finding]:
    """What each extra would add."""
    for extra in _EXTRAS:
        try:
            wanted = _requirements(extra)
        except metadata.PackageNotFoundError:
            return
        lacking = {name: why for name, bounds in wanted.items() if (why := _lacking(name, bounds))}
        if not lacking:
            yield Finding("extras", extra, "ok", "installed")
            continue
        old = [f"{name} ({why})" for name, why in lacking.items() if why != _MISSING]
        new = [name for name, why in lacking.items() if why == _MISSING]
        add = f'pip install "{_NAME}[{extra}]" would add {", ".join([*new, *old])}'
        # What is there in part may be there for another reason; too old a version is in the way.
        yield Finding("extras", extra, "broken" if old else "absent", add)


_MISSING = "missing"


def _lacking(name: str, bounds: str) -> str:
    """What is wrong with a package, if something is."""
    from packaging.specifiers import SpecifierSet

    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return _MISSING
    fits = SpecifierSet(bounds).contains(version, prereleases=True)
    return "" if fits else f"{version}, where {bounds} is needed"


def _requirements(extra: str) -> dict[str, str]:
    """Packages that an extra adds, or that ovseg needs without one, with their versions' bounds."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    for line in metadata.requires(_NAME) or []:
        requirement = Requirement(line)
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if extra and always:
            continue
        if requirement.name == _NAME:
            for inner in requirement.extras:
                found.update(_requirements(inner))
        else:
            found[requirement.name] = str(requirement.specifier)
    return found


def _devices() -> Iterator[Finding]:
    yield Finding("devices", "cpu", "ok", f"{os.cpu_count()} cores, {platform.machine()}")
    try:
        import torch
    except ImportError:
        needed = "no torch: the built-in model and exported ones run in ONNX Runtime"
        yield Finding("devices", "cuda", "absent", needed)
        return
    except OSError as error:  # a library of the system's that it was built for
        yield Finding("devices", "torch", "broken", f"cannot be loaded: {error}")
        return
    if not torch.cuda.is_available():
        built = f"torch {torch.__version__} sees none"
        yield Finding("devices", "cuda", "absent", built)
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        detail = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        yield Finding("devices", f"cuda:{number}", "ok", detail)
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "ok", "Apple's GPU")


def _caches() -> Iterator[Finding]:
    folder = cache_folder()
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(above, os.W_OK):
        detail = f"{folder} cannot be written: set OVSEG_CACHE to a folder that can"
        yield Finding("caches", "downloads", "broken", detail)
        return
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    yield Finding("caches", "downloads", "ok", f"{folder}, {len(files)} files, {size / 1e6:.0f} MB")


def _starter() -> Iterator[Finding]:
    """Whether the built-in model labels an image."""
    import numpy as np

    from ovseg.inference.segmenter import Segmenter

    try:
        segmenter = Segmenter.from_pretrained("starter", "cpu")
        segmenter.segment(np.zeros((32, 32, 3), np.uint8), ["cat"])
    except (OvsegError, ImportError, OSError) as error:
        yield Finding("models", "starter", "broken", str(error))
    else:
        yield Finding("models", "starter", "ok", "labels an image")
