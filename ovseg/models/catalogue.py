"""The models with a name: what they are, where they come from, and what was published of them.

Scores are mIoU in percent as their authors published them; none was measured here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ovseg.models.aligned.projections import LICENCE, RELEASED, REPOSITORY

_AUTHORS = "https://github.com/Jazzcharles/OVSegmentor#model-zoo"
_HUB = "https://huggingface.co/"
_DINOTXT = "dino.txt on {}: a head on its patches and a text tower, aligned by captions"


@dataclass(frozen=True)
class Entry:
    """A model with a name.

    Attributes:
        name: as given to `--model`.
        kind: the family, such as `starter`, `ovsegmentor` or `clip`.
        description: what it is and learned from, in a few words.
        licence: SPDX expression of the weights, or the terms in a few words.
        source: "built in", or the page it comes from.
        scores: published mIoU in percent by benchmark; empty where none is published.
        released: name of the authors' file, where people must fetch and convert it.
        hub: `owner/name` on the Hugging Face hub, where open_clip's loader finds the weights.
        tower: whether it is one of `ovseg.models.towers`, which know their files.
        projection: whether it is a projection of Talk2DINO, whose file is fetched and converted.
        size: their bytes, as computed from the architecture in float32; None where nothing is
            downloaded.
        facts: what else is to be known of it, by headings.
    """

    name: str
    kind: str
    description: str
    licence: str
    source: str
    scores: Mapping[str, float] = field(default_factory=dict)
    released: str = ""
    hub: str = ""
    tower: bool = False
    projection: bool = False
    size: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_built_in(self) -> bool:
        return self.source == "built in"


def _tips(variant: str, architecture: str, ade20k: float, size: int) -> Entry:
    """TIPSv2 of some size."""
    return Entry(
        name=f"tipsv2-{variant}",
        kind="tipsv2",
        description=f"TIPSv2 {architecture}, trained on captions and patches (arXiv 2604.12012)",
        licence="Apache-2.0",
        source=f"{_HUB}google/tipsv2-{variant}",
        scores={"ade20k": ade20k},
        tower=True,
        size=size,
        facts={"code read at": "google-deepmind/tips, commit 4db271d"},
    )


# One entry per model, in the order in which they are listed. Scores are the authors' own, zero-shot
# mIoU under the protocol of their paper.
CATALOGUE: tuple[Entry, ...] = (
    Entry(
        name="starter",
        kind="starter",
        description="ImageNet-supervised starter for a first try; not an OVSegmentor checkpoint",
        licence="Apache-2.0 AND LicenseRef-WordNet-3.0",
        source="built in",
        facts={
            "network": "EfficientNet-Lite2, its classifier read on two scales, and U2-Net (small)",
            "training data": "ImageNet-1k with its labels and DUTS-TR with its masks, by the "
            "networks' authors; Flickr8k's captions, whose photos are under their owners' licences "
            "(only weights derived from them ship); for giraffes a stamp of Tux Paint",
            "words": "some 3,300 nouns, by hand, by WordNet and by captions: "
            "ovseg segment --list-classes",
            "measured": "23.4 mIoU on 100 photos of COCO-Object (95 % interval 18.3 to 24.6), "
            "33.3 with the things of each photo alone",
            "weak at": "faces and bare skin, large plain things, what does not stand out",
            "card": "MODEL_CARD.md in ovseg/models/starter",
        },
    ),
    Entry(
        name="ovsegmentor-vitb16-bert",
        kind="ovsegmentor",
        description="OVSegmentor, ViT-B/16 and BERT-base, CC4M (Xu et al., CVPR 2023)",
        licence="non-commercial, see the source",
        source=_AUTHORS,
        scores={"voc": 53.8, "context": 20.4, "coco-object": 25.1, "ade20k": 5.6},
        released="the ViT-B and BERT-Base checkpoint",
    ),
    Entry(
        name="ovsegmentor-vits16-roberta",
        kind="ovsegmentor",
        description="OVSegmentor, ViT-S/16 and RoBERTa-base, CC4M (Xu et al., CVPR 2023)",
        licence="non-commercial, see the source",
        source=_AUTHORS,
        scores={"voc": 44.5, "context": 18.3, "coco-object": 19.0, "ade20k": 4.3},
        released="the ViT-S and Roberta-Base checkpoint",
    ),
    # Scores of NACLIP without PAMR, which is what these names run; with `--refine pamr` its authors
    # report 64.1, 35.0, 36.2 and 19.1.
    Entry(
        name="clip-b16",
        kind="dense-clip",
        description="dense CLIP ViT-B/16 of OpenAI, head naclip (Hajimiri et al., WACV 2025)",
        licence="MIT",
        source="https://huggingface.co/timm/vit_base_patch16_clip_224.openai",
        scores={"voc": 58.9, "context": 32.2, "coco-object": 33.2, "ade20k": 17.4},
        hub="timm/vit_base_patch16_clip_224.openai",
        size=598_482_948,
    ),
    Entry(
        name="clip-l14",
        kind="dense-clip",
        description="dense CLIP ViT-L/14 of OpenAI; no score of it is published that we know",
        licence="MIT",
        source="https://huggingface.co/timm/vit_large_patch14_clip_224.openai",
        hub="timm/vit_large_patch14_clip_224.openai",
        size=1_710_466_052,
    ),
    # ProxyCLIP's scores, with DINO ViT-B/8 as guide (Lan et al., ECCV 2024).
    Entry(
        name="clip-h14",
        kind="dense-clip",
        description="dense CLIP ViT-H/14 on LAION-2B; scores are of clip-h14,head=proxyclip",
        licence="MIT",
        source="https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        scores={"voc": 65.0, "context": 35.4, "coco-object": 38.6, "ade20k": 24.2},
        hub="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        size=3_944_437_764,
    ),
    Entry(
        name="siglip2-b16",
        kind="dense-clip",
        description="dense SigLIP 2 ViT-B/16, many languages; no dense score of it is published",
        licence="Apache-2.0",
        source="https://huggingface.co/timm/ViT-B-16-SigLIP2-256",
        hub="timm/ViT-B-16-SigLIP2-256",
        size=1_500_936_200,
    ),
    # Scores with PAMR in every window, as the table of another paper has them.
    Entry(
        name="talk2dino-b",
        kind="aligned",
        description="Talk2DINO: DINOv2-B with registers and CLIP's texts, aligned by COCO captions "
        "(Barsellotti et al. 2024)",
        licence=LICENCE,
        source=REPOSITORY,
        scores={"voc": 65.8, "context": 37.7, "coco-object": 45.1, "ade20k": 22.5},
        projection=True,
        size=RELEASED["talk2dino-b"].size,
        facts={
            "towers": "fetched when it is first used: DINOv2 ViT-B/14 with registers (346 MB, "
            "Apache-2.0) and CLIP ViT-B/16 of OpenAI (598 MB, MIT)",
        },
    ),
    Entry(
        name="talk2dino-dinov3-b",
        kind="aligned",
        description="Talk2DINO on DINOv3-B; no score of it is published that we know",
        licence=LICENCE,
        source=REPOSITORY,
        projection=True,
        size=RELEASED["talk2dino-dinov3-b"].size,
        facts={
            "towers": "fetched when it is first used: DINOv3 ViT-B/16 (86 M parameters, DINOv3 "
            "licence, to be accepted on the hub) and CLIP ViT-B/16 of OpenAI (598 MB, MIT)",
        },
    ),
    _tips("b14", "ViT-B/14", 17.4, 783_793_152),
    _tips("l14", "ViT-L/14", 24.7, 1_951_764_480),
    _tips("so400m14", "SoViT-400m/14", 23.3, 3_446_907_264),
    Entry(
        name="dinotxt-dinov2-l",
        kind="dinotxt",
        description=_DINOTXT.format("DINOv2-L with registers") + " (Jose et al., CVPR 2025)",
        licence="Apache-2.0",
        source="https://github.com/facebookresearch/dinov2",
        tower=True,
        size=2_253_830_144,
        facts={
            "backbone": "fetched as well: DINOv2 ViT-L/14 with registers of timm (1.2 GB)",
            "code read at": "facebookresearch/dinov2, commit b8931f7",
        },
    ),
    Entry(
        name="dinotxt-dinov3-l",
        kind="dinotxt",
        description=_DINOTXT.format("DINOv3-L"),
        licence="DINOv3 licence",
        source="https://github.com/facebookresearch/dinov3",
        scores={"cityscapes": 36.9, "ade20k": 24.7},
        tower=True,
        size=2_253_830_144,
        facts={
            "how to get it": "on request, from "
            "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/; "
            "ovseg models pull says where to put it",
            "backbone": "DINOv3 ViT-L/16 of timm (1.2 GB, DINOv3 licence)",
            "code read at": "facebookresearch/dinov3, commit 6876159",
        },
    ),
    Entry(
        name="groupvit",
        kind="groupvit",
        description="GroupViT, learned to group pixels on GCC and YFCC (Xu et al., CVPR 2022)",
        licence="see the source",
        source=_HUB + "nvidia/groupvit-gcc-yfcc",
        scores={"voc": 50.4, "context": 18.7, "coco-object": 27.5, "ade20k": 9.2},
        tower=True,
        size=222_906_436,
    ),
)
