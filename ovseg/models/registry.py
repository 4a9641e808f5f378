"""Models by name: whether they are here, fetching and loading them.

What `--model` takes is a name of `CATALOGUE`, a name of dense CLIP (see `ovseg.models.clip.names`),
a checkpoint's file or the folder of an exported model.
"""

import difflib
import logging
from importlib import import_module
from pathlib import Path

from ovseg import files
from ovseg.errors import DownloadError, MissingDependencyError, ModelError, UsageError
from ovseg.models.aligned.projections import LICENCE, RELEASED, REPOSITORY
from ovseg.models.catalogue import CATALOGUE, Entry
from ovseg.models.clip.names import WEIGHT_NAMES, is_clip_name
from ovseg.models.interface import SegmentationModel
from ovseg.models.towers.names import is_tower_name

_log = logging.getLogger(__name__)

BUILT_IN = "starter"


def find_entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        UsageError: there is none, with the nearest name.
    """
    names = {entry.name: entry for entry in CATALOGUE}
    if name in names:
        return names[name]
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "`ovseg models list` shows those there are"
    raise UsageError(f"there is no model or file called {name}; {hint}")


def local_file(entry: Entry) -> Path | None:
    """Where the model's file is, or will be; None for what is built in or the hub will place."""
    if entry.is_built_in:
        return None
    if entry.tower:
        from ovseg.models.towers.files import weights_here

        return weights_here(entry.name)
    if entry.hub:
        from ovseg.download import cached_file

        return cached_file(entry.hub, WEIGHT_NAMES)
    return files.cache_folder() / "models" / f"{entry.name}.safetensors"


def is_cached(entry: Entry) -> bool:
    """Whether the model can be used without a network."""
    path = local_file(entry)
    if path is None:
        return entry.is_built_in
    return path.is_file()


def pull(entry: Entry) -> Path | None:
    """Make the model's file be here, and return its path; None for what is built in.

    Raises:
        ModelError: only people can fetch it, with the steps.
        DownloadError: the source fails or does not keep its promise.
    """
    path = local_file(entry)
    if entry.tower:
        from ovseg.models.towers.files import tower_files
        from ovseg.models.towers.names import parse_tower_name

        return tower_files(parse_tower_name(entry.name))[-1]
    if entry.hub:
        from ovseg.download import hub_file

        return hub_file(entry.hub, WEIGHT_NAMES, "then put it where the hub's cache would have it")
    if path is None or path.is_file():
        return path
    if entry.projection:
        return _pull_projection(entry.name, path)
    raise ModelError(
        f"{entry.name} cannot be fetched for you: its authors publish no checksum. Get "
        f"{entry.released} from {entry.source}, then: ovseg models convert FILE.pth {path}"
    )


def _pull_projection(name: str, path: Path) -> Path:
    """Fetch a released projection, compare it with its hash, and convert it."""
    from ovseg.download import fetch, show_size
    from ovseg.models.released_files import convert_released

    released = RELEASED[name]
    there = path.with_name(released.file)
    if not there.is_file():
        _log.warning("downloading %s (%s)", released.address, show_size(released.size))
    fetch(released.address, there)
    if files.sha256(there) != released.sha256:
        there.unlink()
        raise DownloadError(f"{released.address}: not the file that was released: fetch it again")
    _log.warning("licence: %s (%s)", LICENCE, REPOSITORY)
    convert_released(there, path)
    return path


def load_model(
    name_or_path: str | Path = BUILT_IN, device: str = "auto", *, in_torch: bool = False
) -> SegmentationModel:
    """Load a model by name and move it to a device.

    Exported models run in their own runtime, all others in torch. The built-in one, which is both,
    runs in ONNX Runtime where that is installed and the device is `auto` or `cpu`: there it gives
    its first mask sooner, since torch takes long to import, and the same labels. A device that is
    named otherwise (`cuda`, `mps`) is torch's.

    Args:
        name_or_path: as `ovseg segment --model` takes it.
        device: as torch names it, or `auto`.
        in_torch: have the built-in model in torch on every device, to take it apart.

    Raises:
        UsageError: the name is not known and no such file exists, or the device is not there.
        ModelError: the file is no checkpoint of ovseg, damaged, or not downloaded yet.
        MissingDependencyError: the model needs torch and torch is not installed. The built-in one
            does without where ONNX Runtime is there.
    """
    if _is_export(Path(name_or_path)):
        from ovseg.models.exported import read_exported

        return read_exported(Path(name_or_path), device)
    if str(name_or_path) == BUILT_IN:
        return _built_in(device, in_torch)
    if _is_taught(Path(name_or_path)):
        from ovseg.models.taught.file import read_taught

        return read_taught(
            Path(name_or_path),
            lambda base, updated: load_model(base, device, in_torch=in_torch or updated),
        )
    if not _importable("torch"):
        raise MissingDependencyError("torch", "torch", "this model")
    chosen = choose_device(device)
    if is_clip_name(str(name_or_path)):
        from ovseg.models.clip.model import DenseClip

        return DenseClip.load(str(name_or_path)).to(chosen)
    if is_tower_name(str(name_or_path)):
        from ovseg.models.towers.load import load_tower

        return load_tower(str(name_or_path)).to(chosen)
    if Path(name_or_path).exists():
        return _read_file(Path(name_or_path)).to(chosen)
    return load_model(_file_of(str(name_or_path)), chosen)


def _read_file(path: Path) -> SegmentationModel:
    """A checkpoint, of whichever family it says it is."""
    from ovseg.models.checkpoint import ALIGNED, read_info
    from ovseg.models.ovsegmentor.predictor import RELEASED_SUFFIXES, read_model

    if path.suffix in RELEASED_SUFFIXES or read_info(path).model_class != ALIGNED:
        return read_model(path)
    from ovseg.models.aligned.aligner import read_aligned

    return read_aligned(path)


def _is_export(path: Path) -> bool:
    """Whether a path is an exported folder; for what is no folder, nothing is imported to know."""
    if not path.is_dir():
        return False
    from ovseg.models.manifest import MANIFEST

    return (path / MANIFEST).is_file()


def _is_taught(path: Path) -> bool:
    """Whether a path is the file of a taught model, which needs torch only where its base does."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    from ovseg.models.taught.file import is_taught

    return is_taught(path)


def _built_in(device: str, in_torch: bool) -> SegmentationModel:
    """The starter in the runtime that suits the device; in the other where that is missing."""
    kind = device.partition(":")[0]  # one of several processes has "cpu:0"
    wants_torch = in_torch or kind not in ("auto", "cpu")
    if not wants_torch and _importable("onnxruntime"):
        return _in_onnx_runtime(kind)
    if _importable("torch"):
        from ovseg.models.starter.model import StarterModel

        return StarterModel().to(choose_device(device))
    if in_torch:
        raise MissingDependencyError("torch", "torch", "this use of the built-in model")
    if _importable("onnxruntime"):
        return _in_onnx_runtime(device)
    raise MissingDependencyError("onnxruntime (or torch)", "onnx", "the built-in model")


def _in_onnx_runtime(device: str) -> SegmentationModel:
    from ovseg.models.exported import BuiltInModel

    return BuiltInModel(device)


def _importable(package: str) -> bool:
    """Whether a package can be imported, which is more than that it is there."""
    try:
        import_module(package)
    except ImportError:
        return False
    return True


def _file_of(name: str) -> Path:
    """The file of a model that the catalogue lists."""
    entry = find_entry(name)
    path = local_file(entry)
    if path is None or not is_cached(entry):
        raise ModelError(f"{name} is not on this machine yet: ovseg models pull {name}")
    return path


def choose_device(device: str) -> str:
    """`auto` is the first of CUDA, MPS and CPU that is there; another name is checked."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next((name for name, usable in there.items() if usable), "cpu")
    family = device.split(":")[0]
    if family not in ("cpu", *there):
        raise UsageError(f"unknown device {device}: choose auto, cpu, cuda or mps")
    if not there.get(family, True):
        raise UsageError(f"device {device} is not available to torch here: try the device cpu")
    return device
