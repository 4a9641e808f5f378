"""From a model's name or file to the model."""

from importlib import import_module
from pathlib import Path

from ovseg.errors import MissingDependencyError, ModelError, UsageError
from ovseg.models.catalogue import find_entry, is_cached, local_file
from ovseg.models.clip.names import is_clip_name
from ovseg.models.interface import SegmentationModel

BUILT_IN = "starter"


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
    if not _importable("torch"):
        raise MissingDependencyError("torch", "torch", "this model")
    chosen = choose_device(device)
    if is_clip_name(str(name_or_path)):
        from ovseg.models.clip.model import DenseClip

        return DenseClip.load(str(name_or_path)).to(chosen)
    if Path(name_or_path).exists():
        from ovseg.models.checkpoint_model import read_model

        return read_model(Path(name_or_path)).to(chosen)
    return load_model(_file_of(str(name_or_path)), chosen)


def _is_export(path: Path) -> bool:
    """Whether a path is an exported folder; for what is no folder, nothing is imported to know."""
    if not path.is_dir():
        return False
    from ovseg.models.export_description import EXPORT_DESCRIPTION

    return (path / EXPORT_DESCRIPTION).is_file()


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
        raise UsageError(f"device {device} is not available to torch here: try --device cpu")
    return device
