"""Caption-trained models by name: where their files are, and which they are.

tipsv2-b14                 a name of `TOWERS`
tipsv2:/path/to/folder     the files of the hub's repository in a folder
dinotxt:/path/to/folder    the authors' files, and `backbone.safetensors` of timm
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Family = Literal["tipsv2", "dinotxt", "groupvit"]

FAMILIES: tuple[Family, ...] = ("tipsv2", "dinotxt", "groupvit")

_META = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/"
_DINOV2_TXT = "dinov2_vitl14_reg4_dinotxt_tet1280d20h24l_"


@dataclass(frozen=True)
class TowerSource:
    """Where a model's files are.

    Attributes:
        family: how they are read.
        repository: `owner/name` on the hub; of dino.txt that of the backbone, as timm has it.
        addresses: further files by their name, at their authors'; empty where people must ask for
            them.
        files: names of the further files.
        backbone: timm's name of the backbone (dino.txt).
        terms: the page where people ask for files that are not given to everyone.
    """

    family: Family
    repository: str
    addresses: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    backbone: str = ""
    terms: str = ""


TOWERS: dict[str, TowerSource] = {
    **{
        f"tipsv2-{size}": TowerSource("tipsv2", f"google/tipsv2-{size}")
        for size in ("b14", "l14", "so400m14")
    },
    "dinotxt-dinov2-l": TowerSource(
        "dinotxt",
        "timm/vit_large_patch14_reg4_dinov2.lvd142m",
        addresses={
            f"{_DINOV2_TXT}{part}.pth": f"{_META}{_DINOV2_TXT}{part}.pth"
            for part in ("vision_head", "text_encoder")
        },
        files=tuple(f"{_DINOV2_TXT}{part}.pth" for part in ("vision_head", "text_encoder")),
        backbone="vit_large_patch14_reg4_dinov2.lvd142m",
    ),
    "dinotxt-dinov3-l": TowerSource(
        "dinotxt",
        "timm/vit_large_patch16_dinov3.lvd1689m",
        files=("dinov3_vitl16_dinotxt_vision_head_and_text_encoder-a442d8f5.pth",),
        backbone="vit_large_patch16_dinov3.lvd1689m",
        terms="https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/",
    ),
    "groupvit": TowerSource("groupvit", "nvidia/groupvit-gcc-yfcc"),
}
"""Every model with a name of its own."""

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""What the hub calls the weights, the form without pickle first."""

BACKBONE = "backbone.safetensors"
"""What the backbone of dino.txt is called in a folder."""

HUB_FILES: dict[Family, tuple[tuple[str, ...], ...]] = {
    "tipsv2": (
        ("config.json",),
        ("tokenizer.json", "tokenizer.model"),
        ("tokenizer_config.json",),
        ("model.safetensors",),
    ),
    "groupvit": (("config.json",), ("tokenizer.json", "vocab.json"), ("merges.txt",), WEIGHTS),
    "dinotxt": (("model.safetensors",),),
}
"""Files of a repository that are needed, each under the first name that is there; weights last."""


@dataclass(frozen=True)
class TowerName:
    """A model as it was asked for: a key of `TOWERS`, or a family and a folder."""

    family: Family
    name: str = ""
    folder: Path | None = None


def is_tower_name(name: str) -> bool:
    """Whether `--model name` means one of these models."""
    return name in TOWERS or name.partition(":")[0] in FAMILIES


def parse_tower_name(name: str) -> TowerName:
    """Read a name for which `is_tower_name` holds."""
    if name in TOWERS:
        return TowerName(TOWERS[name].family, name)
    family, _, folder = name.partition(":")
    known = next(each for each in FAMILIES if each == family)
    return TowerName(known, folder=Path(folder).expanduser())
