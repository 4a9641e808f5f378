"""The built-in starter model.

Letters: B image, Q phrase, C class (1,000 of ImageNet, and kinds of
surroundings behind them), H W pixels, h w grid rows and columns.

An ImageNet-supervised classifier, EfficientNet-Lite2, read at every position, with words grounded
in its classes by hand and by WordNet, and U2-Net, which tells objects from what surrounds them. It
is here so that everything works offline from the first minute. It is no OVSegmentor checkpoint: it
was trained with labels and with masks, and knows only what ImageNet names. MODEL_CARD.md beside
this file says what it scores and where it fails.
"""

import hashlib
from collections.abc import Sequence
from importlib.resources import as_file, files

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ovseg.files import sha256
from ovseg.models.interface import (
    GroupedImage,
    ModelCard,
    PartlyKnown,
    Preprocessing,
    UnknownPhrase,
)
from ovseg.models.scoring import starter_scores
from ovseg.models.starter.network import STRIDE, EfficientNetLite
from ovseg.models.starter.reader import PositionReader, ReadingRule
from ovseg.models.starter.saliency import SaliencyNetwork
from ovseg.models.starter.surroundings import Surroundings
from ovseg.models.starter.words import WordTable

DESCRIPTION = (
    "built-in starter: EfficientNet-Lite2, supervised on ImageNet-1k, its classifier read at every "
    "position and words grounded by hand and WordNet, and U2-Net, supervised by masks of objects "
    "without names; not an OVSegmentor checkpoint"
)


class StarterModel:
    """Implements `SegmentationModel`: the groups are the positions of a stride-8 grid.

    An embedding is the classifier's probabilities, a class embedding the share with which each
    ImageNet class counts for a phrase, and a score their product, lowered by the number of phrases:
    see `ovseg.models.scoring`.

    Args:
        rule: how the networks are read, instead of the shipped way; for measuring.
    """

    templates = ("{}",)
    threshold = 0.004
    preprocessing = Preprocessing(
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        short_side=448,
        multiple_of=2 * STRIDE,  # the half-sized image too has whole positions
    )

    def __init__(self, rule: ReadingRule | None = None) -> None:
        self.words = WordTable()
        folder = files("ovseg.models.starter")
        with as_file(folder / "weights.safetensors") as path:
            half = load_file(path)
            weights_hash = sha256(path)
        with as_file(folder / "saliency.safetensors") as path:
            masks = load_file(path)
            saliency_hash = sha256(path)
        with as_file(folder / "words.json.gz") as path:
            words_hash = sha256(path)
        self.network = EfficientNetLite(classes=len(half["classifier.bias"]))
        self.saliency = SaliencyNetwork()
        self.reader = PositionReader(
            self.network, Surroundings(self.words.surroundings, STRIDE), self.saliency, rule
        )
        self.network.load_state_dict({name: tensor.float() for name, tensor in half.items()})
        self.saliency.load_state_dict({name: tensor.float() for name, tensor in masks.items()})
        self.reader.requires_grad_(False).eval()
        # Filters of single channels run about a fifth faster with the channels last.
        self.network.to(memory_format=torch.channels_last)
        self.card = ModelCard(
            name="starter",
            kind="starter",
            description=DESCRIPTION,
            licence="Apache-2.0 AND LicenseRef-WordNet-3.0",
            content_hash=hashlib.sha256(
                f"{weights_hash} {saliency_hash} {words_hash}".encode()
            ).hexdigest(),
        )

    def to(self, device: str) -> "StarterModel":
        """Move the network to a device and return self."""
        self.reader.to(device)
        return self

    def from_numpy(self, values: np.ndarray) -> Tensor:
        """A tensor on the network's device."""
        return torch.from_numpy(values).to(self.network.classifier.weight.device)

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> GroupedImage:
        """Class probabilities at every position, float [B, h*w, C]."""
        read = self.reader(pixels.contiguous(memory_format=torch.channels_last))
        return GroupedImage(read.probabilities, read.grid)

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Share of each class in each phrase, float [Q, C]; templates change nothing.

        A phrase that cannot be grounded has an embedding of zeros, which no position matches.
        """
        del templates
        return self.from_numpy(np.stack([self.words.weights(phrase) for phrase in phrases]))

    @torch.inference_mode()
    def score(
        self, grouped: GroupedImage, class_embeddings: Tensor, threshold: float | None
    ) -> Tensor:
        """Scores of background (constant) and of each phrase, float [B, h*w, 1 + Q]."""
        return starter_scores(grouped.embedding, class_embeddings, threshold)

    def known_words(self) -> list[str]:
        """Every word with an ImageNet class at or below it."""
        return self.words.words

    def unknown(self, phrases: Sequence[str]) -> list[UnknownPhrase]:
        """Phrases without an ImageNet class below them, with the nearest words that have one."""
        return self.words.unknown(phrases)

    def partly_known(self, phrases: Sequence[str]) -> list[PartlyKnown]:
        """Phrases of which the last words have an ImageNet class, and the others do not count."""
        return self.words.partly_known(phrases)
