"""The built-in starter model.

Letters: B image, Q phrase, C width of embeddings (classes of ImageNet, and what captions say), H W
pixels, h w grid rows and columns.

An ImageNet-supervised classifier, EfficientNet-Lite2, read at every position, with words grounded
in its classes by hand and by WordNet; what captions taught about the same features; and U2-Net,
which tells objects from what surrounds them. It is here so that everything works offline from the
first minute. It is no OVSegmentor checkpoint: it was trained with labels and with masks too.
MODEL_CARD.md beside this file says what it scores and where it fails.
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
from ovseg.models.scoring import Weights, starter_scores
from ovseg.models.starter.captions import CaptionReader
from ovseg.models.starter.network import STRIDE, EfficientNetLite
from ovseg.models.starter.reader import PositionReader, ReadingRule
from ovseg.models.starter.saliency import SaliencyNetwork
from ovseg.models.starter.words import TABLES, WordTable

DESCRIPTION = (
    "built-in starter: EfficientNet-Lite2, supervised on ImageNet-1k, its classifier read at every "
    "position and words grounded by hand and WordNet; what words mean there beside, learned from "
    "Flickr8k's captions with all-MiniLM-L6-v2; and U2-Net, supervised by masks of objects without "
    "names; not an OVSegmentor checkpoint"
)


class StarterModel:
    """Implements `SegmentationModel`: the groups are the positions of a stride-8 grid.

    An embedding is the classifier's probabilities and what captions say of a position, a class
    embedding the share with which each ImageNet class counts for a phrase and what captions say of
    its word, lowered by the number of phrases: see `ovseg.models.scoring`.

    Args:
        rule: how the networks are read, instead of the shipped way; for measuring.
    """

    templates = ("{}",)
    threshold = 0.5
    preprocessing = Preprocessing(
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        short_side=448,
        multiple_of=2 * STRIDE,  # the half-sized image too has whole positions
    )

    def __init__(self, rule: ReadingRule | None = None) -> None:
        self.words = WordTable()
        folder = files("ovseg.models.starter")
        hashes = []
        states = {}
        for part in ("weights", "saliency", "captions"):
            with as_file(folder / f"{part}.safetensors") as path:
                states[part] = {name: values.float() for name, values in load_file(path).items()}
                hashes.append(sha256(path))
        for name in TABLES:
            with as_file(folder / name) as path:
                hashes.append(sha256(path))
        self.network = EfficientNetLite(classes=len(states["weights"]["classifier.bias"]))
        self.saliency = SaliencyNetwork()
        captions = CaptionReader(len(states["captions"]["frequency"]))
        self.reader = PositionReader(self.network, captions, self.saliency, rule)
        self.network.load_state_dict(states["weights"])
        self.saliency.load_state_dict(states["saliency"])
        captions.load_state_dict(states["captions"])
        self.reader.requires_grad_(False).eval()
        # Filters of single channels run about a fifth faster with the channels last.
        self.network.to(memory_format=torch.channels_last)
        self.card = ModelCard(
            name="starter",
            kind="starter",
            description=DESCRIPTION,
            licence="Apache-2.0 AND LicenseRef-WordNet-3.0",
            content_hash=hashlib.sha256(" ".join(hashes).encode()).hexdigest(),
        )

    def to(self, device: str) -> "StarterModel":
        """Move the network to a device and return self."""
        self.reader.to(device)
        return self

    def from_numpy(self, values: np.ndarray) -> Tensor:
        """A tensor on the network's device."""
        return torch.from_numpy(values).to(self.network.classifier.weight.device)

    @property
    def tower(self) -> EfficientNetLite:
        """The classifier's network."""
        return self.network

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> GroupedImage:
        """What is at every position; see `PositionReading`."""
        return self.look(pixels)

    def look(self, pixels: Tensor) -> GroupedImage:
        """As `encode_image`, with gradients for the weights that want them."""
        read = self.reader(pixels.contiguous(memory_format=torch.channels_last))
        return GroupedImage(
            read.positions,
            read.grid,
            features=read.middle,
            stages=read.stages,
            weights=read.weights,
        )

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """What phrases mean, float [Q, C], as `WordTable.embedding`; templates change nothing.

        A phrase that cannot be grounded has an embedding of zeros, which no position matches.
        """
        del templates
        return self.from_numpy(np.stack([self.words.embedding(phrase) for phrase in phrases]))

    @torch.inference_mode()
    def score(
        self, grouped: GroupedImage, class_embeddings: Tensor, threshold: float | None
    ) -> Tensor:
        """Scores of background (constant) and of each phrase, float [B, h*w, 1 + Q]."""
        return starter_scores(
            grouped.embedding,
            class_embeddings,
            threshold,
            self.words.captions,
            Weights.of(grouped),
        )

    def known_words(self) -> list[str]:
        """Every word with an ImageNet class at or below it."""
        return self.words.words

    def unknown(self, phrases: Sequence[str]) -> list[UnknownPhrase]:
        """Phrases of which nothing is known, with the nearest words that have an ImageNet class."""
        return self.words.unknown(phrases)

    def partly_known(self, phrases: Sequence[str]) -> list[PartlyKnown]:
        """Phrases of which some words are known, and the others do not count."""
        return self.words.partly_known(phrases)
