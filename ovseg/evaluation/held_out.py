"""Retrieval among the photos that a training of an aligned model holds out.

The features are those that the training made; photos and captions are compared as its contrast
compares them.

Letters: I photo, T caption, N position, A attention head, D width, C embedding width.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ovseg.config.schema import Recipe
from ovseg.errors import RecipeError
from ovseg.evaluation.ranking import Retrieval, recalls
from ovseg.models.aligned.aligner import AlignedPredictor
from ovseg.training.aligned.encoding import HEADS, SENTENCE, TOKENS
from ovseg.training.aligned.features import CAPTIONS, Features, features_of, view_name
from ovseg.training.aligned.lesson import caption_scores, see_photos

_PHOTOS = 32  # scored at once


class HeldOut:
    """Scores models on the photos that `data.held_out` keeps out of their training.

    Args:
        recipe: of the training.

    Raises:
        RecipeError: the recipe holds none out, or is of another kind of model.
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.model.aligned is None:
            raise RecipeError('train.evaluate_on = "retrieval" is for aligned models')
        if not recipe.data.held_out:
            raise RecipeError(
                'train.evaluate_on = "retrieval" needs photos that are not trained on: set '
                "data.held_out"
            )
        self.recipe = recipe
        self._features: Features | None = None

    def __call__(self, model: AlignedPredictor) -> Mapping[str, float]:
        """Recall by name; the mean of both ways at 1 comes first and decides."""
        found = self.retrieval(model)
        both = (found.image_to_text[1].value + found.text_to_image[1].value) / 2
        ways = {"image to text": found.image_to_text, "text to image": found.text_to_image}
        listed = {
            f"{way} R@{k}": hit.value for way, hits in ways.items() for k, hit in hits.items()
        }
        return {"R@1": both, **listed}

    @property
    def trained_on(self) -> int:
        """How many photos the training has, once a model was scored."""
        return 0 if self._features is None else len(self._features.split)

    @torch.no_grad()
    def retrieval(self, model: AlignedPredictor) -> Retrieval:
        """Recall at 1, 5 and 10 with intervals; features that are missing are made first."""
        head = model.model.head.eval()
        device = head.scale.device
        if self._features is None:
            self._features = features_of(self.recipe, model.model, device)
            self._features.make(lambda *_: None)
        features = self._features
        photos = _readable(features)
        captions, owner = _captions(features, photos)
        embedded = head.embed_text_features(captions.to(device))
        parts = [
            caption_scores(
                see_photos(head, *_photos(features, chosen, device)),
                embedded,
                self.recipe.loss.contrastive,
            )
            for chosen in np.array_split(photos, -(-len(photos) // _PHOTOS))
        ]
        scores = torch.cat(parts).float().cpu().numpy()
        return recalls(scores, owner, model.card.name)


def _readable(features: Features) -> np.ndarray:
    """The photos that are held out and could be read."""
    rows = features.rows(view_name(0), features.photo_fields[0])
    return np.flatnonzero(rows.lengths[: features.split.first])


def _captions(features: Features, photos: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Sentences of the photos' captions, float [T, E], and the photo of each by place, [T]."""
    begins = features.photos.begins
    rows = [np.arange(begins[photo], begins[photo + 1]) for photo in photos]
    sentences = features.rows(CAPTIONS, SENTENCE).take(np.concatenate(rows))[0][:, 0]
    owner = np.repeat(np.arange(len(photos)), [len(each) for each in rows])
    return torch.from_numpy(sentences).float(), owner


def _photos(
    features: Features, chosen: np.ndarray, device: torch.device
) -> tuple[Tensor | None, Tensor | None, tuple[int, int]]:
    """Positions [I, N, D] and heads [I, A, D] of photos, and the grid."""

    def take(field: str) -> Tensor | None:
        if field not in features.photo_fields:
            return None
        found = features.rows(view_name(0), field).take(chosen)[0]
        return torch.from_numpy(found).to(device).float()

    return take(TOKENS), take(HEADS), features.grid
