"""From a timm name to the network that guides ProxyCLIP."""

from pathlib import Path
from typing import Any

from ovseg.errors import ModelError, UsageError
from ovseg.models.clip.guide import GuideNetwork
from ovseg.models.clip.hub import hub_file
from ovseg.models.clip.names import nearest
from ovseg.models.normalisation import Normalisation


def load_guide(backbone: str, normalisation: Normalisation) -> GuideNetwork:
    """A timm backbone with its weights, from the hub or, as NAME@FILE, from a file.

    Args:
        backbone: such as `vit_base_patch8_224.dino`.
        normalisation: that of the pixels that will arrive.

    Raises:
        UsageError: timm knows no such model or has no weights for it.
        DownloadError: the weights are not here and cannot be fetched.
        ModelError: the file is of another model, or the model has no patch tokens.
    """
    name, _, file = backbone.partition("@")
    weights = Path(file).expanduser() if file else _from_hub(name)
    if not weights.is_file():
        raise UsageError(f"{weights}: no such file (backbone=NAME@FILE)")
    if weights.suffix != ".safetensors":  # timm reads others as unrestricted pickles
        raise UsageError(f"{weights}: weights of a backbone must be a .safetensors file")
    guide = GuideNetwork(_create(name, weights), normalisation)
    guide.eval().requires_grad_(False)
    return guide


def _from_hub(name: str) -> Path:
    import timm

    known = timm.list_models(name, pretrained=True) or timm.list_models(pretrained=True)
    if name not in known:
        raise UsageError(f"timm has no weights '{name}'{nearest(name, known)}")
    described = timm.get_pretrained_cfg(name)
    repository = getattr(described, "hf_hub_id", None)
    if not repository:
        raise UsageError(f"the weights of {name} are not on the hub: name a file as {name}@FILE")
    return hub_file(
        str(repository),
        ("model.safetensors",),
        by_hand=f"then name it: backbone={name}@/path/to/model.safetensors",
    )


def _create(name: str, weights: Path) -> Any:
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm has no model '{name}'{nearest(name, timm.list_models())}")
    try:
        return timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(weights)},
            num_classes=0,
            dynamic_img_size=True,
        )
    except Exception as error:  # timm, torch and safetensors each have their own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{weights}: cannot be loaded as {name}: {first}") from error
