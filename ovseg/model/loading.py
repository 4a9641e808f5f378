"""From a model's name or file to the model."""

from pathlib import Path

from ovseg.errors import MissingDependencyError, ModelError, UsageError
from ovseg.model.catalogue import find_entry, is_cached, local_file
from ovseg.model.clip.names import is_clip_name
from ovseg.model.interface import SegmentationModel

BUILT_IN = "starter"
EXPORT_DESCRIPTION = "export.json"  # what makes a folder an exported model


def load_model(name_or_path: str | Path = BUILT_IN, device: str = "auto") -> SegmentationModel:
    """Load a model by name and move it to a device.

    Raises:
        UsageError: the name is not known and no such file exists, or the device is not there.
        ModelError: the file is no checkpoint of ovseg, damaged, or not downloaded yet.
        MissingDependencyError: the model needs torch and torch is not installed. The built-in one
            does without where ONNX Runtime is there.
    """
    if (Path(name_or_path) / EXPORT_DESCRIPTION).is_file():
        from ovseg.model.exported import read_exported

        return read_exported(Path(name_or_path), device)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        if str(name_or_path) == BUILT_IN:
            return _built_in_without_torch(device)
        raise MissingDependencyError("torch", "torch", "this model") from error
    chosen = choose_device(device)
    if str(name_or_path) == BUILT_IN:
        from ovseg.model.starter.model import StarterModel

        return StarterModel().to(chosen)
    if is_clip_name(str(name_or_path)):
        from ovseg.model.clip.model import DenseClip

        return DenseClip.load(str(name_or_path)).to(chosen)
    if Path(name_or_path).exists():
        from ovseg.model.checkpoint_model import read_model

        return read_model(Path(name_or_path)).to(chosen)
    return load_model(_file_of(str(name_or_path)), chosen)


def _built_in_without_torch(device: str) -> SegmentationModel:
    from ovseg.model.exported import BuiltInModel

    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        both = "onnxruntime (or torch)"
        raise MissingDependencyError(both, "onnx", "the built-in model") from error
    return BuiltInModel(device)


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
