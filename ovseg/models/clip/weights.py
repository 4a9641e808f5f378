"""From the name of a dense CLIP model to its weights in open_clip's modules.

Whether a tower has quick-GELU is a property of the weights, so it is read from where the weights
are described (open_clip's table, the folder's configuration), never from how the architecture was
spelled: `ViT-B-16/openai` and `ViT-B-16-quickgelu/openai` are the same model.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.documents import read_text
from ovseg.download import hub_file
from ovseg.errors import MissingDependencyError, ModelError, UsageError
from ovseg.files import file_digest
from ovseg.models.checkpoint import check_finite
from ovseg.models.clip.folder_config import FOLDER_CONFIG, read_folder_config
from ovseg.models.clip.names import WEIGHT_NAMES, ClipName, nearest
from ovseg.models.trial import is_panic, try_tokenizer

LOCAL_PREFIX = "local-dir:"
"""How open_clip's name of a tokenizer in a folder begins."""

_QUICK = "-quickgelu"
_SPARE_BYTES = 64 << 20
_MAX_TOKENIZER_BYTES = 32 << 20
_FOLDER_WEIGHTS = (*WEIGHT_NAMES, "model.safetensors")


@dataclass(frozen=True)
class ClipSpec:
    """What has to be built and loaded.

    Attributes:
        config: open_clip's description of the model, `quick_gelu` as the weights need it.
        weights: the file that holds them.
        tokenizer: what open_clip's `get_tokenizer` is asked for.
        mean, std: normalisation of the pixels, per channel in 0..1.
        source: where the weights come from, for the model card.
    """

    config: dict[str, Any]
    weights: Path
    tokenizer: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str


@dataclass(frozen=True)
class LoadedClip:
    """An open_clip model with its weights, in float32 on the CPU, and what goes with it."""

    model: Any
    tokenizer: Any
    spec: ClipSpec
    digest: str


def load_clip(name: ClipName) -> LoadedClip:
    """Find the weights (downloading what is missing) and load them.

    Raises:
        UsageError: open_clip knows no such architecture or weights.
        DownloadError: they are not here and cannot be fetched.
        ModelError: the file does not hold what its name promises.
        MissingDependencyError: open_clip is not installed.
    """
    spec = find_spec(name)
    if name.path is not None:
        _check_size(spec.config, spec.weights)
    model = build(spec.config)
    load_weights(model, spec.weights)
    model.eval().requires_grad_(False)
    tokenizer = load_tokenizer(spec.tokenizer)
    return LoadedClip(model, tokenizer, spec, file_digest(spec.weights))


def find_spec(name: ClipName, download: bool = True) -> ClipSpec:
    """Where the weights are and what they need, without reading them.

    With `download` False those of open_clip's table are not looked for, and `weights` is empty.
    """
    _require_open_clip()
    if name.path is None:
        return _from_table(name, download)
    return _from_folder(name.path) if name.path.is_dir() else _from_file(name)


def pretrained(architecture: str, tag: str) -> tuple[str, dict[str, Any]]:
    """open_clip's plain name of an architecture and its entry for these weights.

    Raises:
        UsageError: there is no such architecture or no such weights of it.
    """
    import open_clip

    names = open_clip.list_models()
    plain = architecture.removesuffix(_QUICK)
    if architecture not in names and plain not in names:
        raise UsageError(f"open_clip has no model '{architecture}'{nearest(architecture, names)}")
    for base in (plain, architecture):
        entry = open_clip.get_pretrained_cfg(base, tag)
        if entry:
            return base, entry
    tags = open_clip.list_pretrained_tags_by_model(plain)
    known = ", ".join(tags) if tags else "none"
    raise UsageError(f"open_clip has no weights '{tag}' for {plain}; it has {known}")


def _from_table(name: ClipName, download: bool) -> ClipSpec:
    base, entry = pretrained(name.architecture, name.tag)
    config = _config(base)
    config["quick_gelu"] = bool(entry.get("quick_gelu", False))
    repository, _, file = str(entry.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise ModelError(
            f"open_clip's weights {base}/{name.tag} are not on the hub: fetch {entry.get('url')} "
            f"and name the file, as clip:/path/to/file,arch={name.architecture}"
        )
    spelled = base + _QUICK if config["quick_gelu"] else base
    by_hand = f"then name it: --model clip:/path/to/file,arch={spelled}"
    names = (file,) if file else WEIGHT_NAMES
    weights = hub_file(repository, names, by_hand) if download else Path()
    source = f"https://huggingface.co/{repository}"
    return ClipSpec(config, weights, base, _triple(entry, "mean"), _triple(entry, "std"), source)


def _from_folder(folder: Path) -> ClipSpec:
    """A folder as open_clip uploads it: configuration, weights, tokenizer."""
    described = read_folder_config(folder)
    config = described["model_cfg"]
    weights = next((folder / n for n in _FOLDER_WEIGHTS if (folder / n).is_file()), None)
    if weights is None:
        raise ModelError(f"{folder}: there is no {' or '.join(_FOLDER_WEIGHTS)} in it")
    pixels = described.get("preprocess_cfg", {})
    tokenizer = f"{LOCAL_PREFIX}{folder}"
    return ClipSpec(
        config, weights, tokenizer, _triple(pixels, "mean"), _triple(pixels, "std"), str(folder)
    )


def _from_file(name: ClipName) -> ClipSpec:
    """A checkpoint file, whose architecture the caller must tell: no file says its activation."""
    import open_clip

    assert name.path is not None
    if not name.architecture:
        raise UsageError(
            f"{name.path}: say what it is, since the file does not tell its activation: add "
            ",arch=ViT-B-16-quickgelu (OpenAI, MetaCLIP, DFN) or ,arch=ViT-B-16 (LAION, DataComp) "
            "or another of open_clip's models"
        )
    names = open_clip.list_models()
    plain = name.architecture.removesuffix(_QUICK)
    if plain not in names:
        raise UsageError(f"open_clip has no model '{plain}'{nearest(plain, names)}")
    config = _config(name.architecture if name.architecture in names else plain)
    if name.architecture.endswith(_QUICK):
        config["quick_gelu"] = True
    siglip = "siglip" in plain.lower()
    default = {"mean": (0.5,) * 3, "std": (0.5,) * 3} if siglip else {}
    return ClipSpec(
        config,
        name.path,
        _tokenizer_beside(name.path) or plain,
        _triple(default, "mean"),
        _triple(default, "std"),
        str(name.path),
    )


def _tokenizer_beside(weights: Path) -> str:
    """The folder of the weights, if it holds a tokenizer and says how to use it."""
    folder = weights.parent
    complete = (folder / "tokenizer.json").is_file() and (folder / FOLDER_CONFIG).is_file()
    return f"{LOCAL_PREFIX}{folder}" if complete else ""


def build(config: dict[str, Any]) -> Any:
    """An open_clip model with fresh weights.

    Raises:
        ModelError: the description is of a captioning model or does not fit open_clip.
    """
    import open_clip

    config = deepcopy(config)
    if "multimodal_cfg" in config:
        raise ModelError("CoCa pools by attention and has no dense reading: take a plain ViT")
    text = config.get("text_cfg", {})
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    try:
        return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    except Exception as error:  # of a description that does not fit, it has any
        raise ModelError(f"open_clip cannot build this model: {_first_line(error)}") from error


def _check_size(config: dict[str, Any], weights: Path) -> None:
    """Refuse a model that has far more numbers than its file, before they are allocated."""
    from ovseg.models.without_memory import without_memory

    with without_memory():
        model = build(config)
    numbers = sum(each.numel() for part in (model.parameters(), model.buffers()) for each in part)
    if 2 * numbers > weights.stat().st_size + _SPARE_BYTES:  # a weight has two bytes or more
        raise ModelError(
            f"{weights}: refused: its description is of {numbers / 1e6:,.0f} M numbers, which are "
            "not in the file"
        )


def load_weights(model: Any, path: Path) -> None:
    """Load a checkpoint of open_clip's or of a form it converts; every key must fit.

    Pickles are read with torch's restricted loader; archives of compiled programs (`.pt` files of
    the original CLIP release) are refused, since loading them runs what is in them.

    Raises:
        ModelError: the file is damaged, is no such checkpoint, is of another model, or holds NaN.
    """
    from open_clip.factory import load_checkpoint

    try:
        load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # torch, zip, pickle and safetensors each have their own
        reason = _first_line(error)
        if "TorchScript" in str(error):
            reason = (
                "it is a compiled program, not weights; take the same weights as safetensors, "
                "as in clip:ViT-B-16/openai"
            )
        raise ModelError(f"{path}: these weights cannot be loaded: {reason}") from error
    check_finite(dict(model.named_parameters()), str(path))


def load_tokenizer(name: str) -> Any:
    """open_clip's tokenizer for an architecture or `local-dir:FOLDER`.

    Raises:
        ModelError: it is a downloaded one that is neither cached nor to be had.
    """
    import open_clip

    folder = Path(name.removeprefix(LOCAL_PREFIX)) if name.startswith(LOCAL_PREFIX) else None
    content = None if folder is None else foreign_tokenizer(folder)
    if content is not None:
        try_tokenizer(content, (), 2, str(folder))
    try:
        return open_clip.get_tokenizer(name, **({} if folder is None else _without_code(folder)))
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        config = open_clip.get_model_config(name) if ":" not in name else None
        repository = (config or {}).get("text_cfg", {}).get("hf_tokenizer_name", "")
        where = f"https://huggingface.co/{repository}" if repository else name
        raise ModelError(
            f"the tokenizer of {name} cannot be loaded ({_first_line(error)}): put the files of "
            f"{where} into one folder and name it, as --model clip:/path/to/folder"
        ) from error


def foreign_tokenizer(folder: Path) -> str | None:
    """The text of a folder's `tokenizer.json`, if it has one."""
    path = folder / "tokenizer.json"
    return read_text(path, _MAX_TOKENIZER_BYTES, ModelError) if path.is_file() else None


def _without_code(folder: Path) -> dict[str, bool]:
    """What keeps transformers from running, and from asking whether to run, code of a folder."""
    text = read_folder_config(folder)["model_cfg"].get("text_cfg", {})
    return {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}


def _config(architecture: str) -> dict[str, Any]:
    import open_clip

    config: dict[str, Any] = open_clip.get_model_config(architecture)
    return config


def _triple(source: dict[str, Any], key: str) -> tuple[float, float, float]:
    """Mean or deviation of a description, OpenAI's where it has none.

    Raises:
        ModelError: they are no numbers of pixels in 0..1.
    """
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    default = OPENAI_DATASET_MEAN if key == "mean" else OPENAI_DATASET_STD
    values = source.get(key, default)
    low = 0.0 if key == "mean" else 1e-4
    try:
        red, green, blue = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        red = green = blue = -1.0
    if not all(low <= value <= 1 for value in (red, green, blue)):
        raise ModelError(f"{key} of the pixels is {str(values)[:80]}, not three shares of 0 to 1")
    return red, green, blue


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _require_open_clip() -> None:
    try:
        import open_clip  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("open_clip", "torch", "dense CLIP") from error
