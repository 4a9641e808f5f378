"""The training transform of images, uint8 in and out; every choice comes from the sample's seed.

Letters: H W pixels of the image, S side of the result.
"""

import logging
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from ovseg.config.schema import AugmentationConfig, Recipe
from ovseg.errors import MissingDependencyError, RecipeError
from ovseg.models.ovsegmentor.predictor import IMAGENET_MEAN, IMAGENET_STD

_log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]  # [H, W, 3], RGB
_TRIES = 10
_ERASED = (0.02, 1 / 3)  # share of the area, at least and at most (Zhong et al. 2020)
_ERASED_RATIO = (0.3, 1 / 0.3)


class Augmentation:
    """Crop, flip, colours and erasing of `[augmentation]`, in this order.

    Args:
        size: side S of the result, pixels.
        crop_scale, crop_ratio: bounds of a crop's share of the area and of its width by height.
        flip: probability of a horizontal flip.
        color_jitter: how far brightness, contrast and saturation vary; only without a policy.
        policy: RandAugment in timm's notation; "" is none.
        erasing: probability that a rectangle is replaced, by noise of the mode "pixel" (a value
            each), of "rand" (one colour) or by the mean colour ("const").
    """

    def __init__(
        self,
        size: int,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (0.75, 4 / 3),
        flip: float = 0.5,
        color_jitter: float = 0.4,
        policy: str = "rand-m9-mstd0.5-inc1",
        erasing: float = 0.25,
        erasing_mode: str = "pixel",
    ) -> None:
        self.size = size
        self.crop_scale = crop_scale
        self.crop_ratio = crop_ratio
        self.flip = flip
        self.color_jitter = 0.0 if policy else color_jitter
        self.policy = rand_augment(policy, size) if policy else None
        self.erasing = erasing
        self.erasing_mode = erasing_mode

    def __call__(self, image: Pixels, seed: int) -> Pixels:
        """Augment an image [H, W, 3] to [S, S, 3]; the same for the same seed."""
        choose = np.random.default_rng(seed)
        image = self._crop(image, choose)
        if choose.random() < self.flip:
            image = np.asarray(cv2.flip(image, 1))
        if self.color_jitter > 0:
            image = self._jitter(image, choose)
        if self.policy is not None:
            with _seeded(int(choose.integers(2**32))):
                image = np.asarray(self.policy(Image.fromarray(np.ascontiguousarray(image))))
        if choose.random() < self.erasing:
            image = self._erase(image, choose)
        return np.ascontiguousarray(image)

    def _crop(self, image: Pixels, choose: np.random.Generator) -> Pixels:
        top, left, height, width = self._box(image.shape[0], image.shape[1], choose)
        crop = image[top : top + height, left : left + width]
        # From twice the size on, pixels between the samples would be lost: average over all then,
        # which takes three times as long.
        far = height >= 2 * self.size or width >= 2 * self.size
        method = cv2.INTER_AREA if far else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(crop, (self.size, self.size), interpolation=method))

    def _box(
        self, height: int, width: int, choose: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop, pixels; the middle where none fits."""
        low, high = (math.log(bound) for bound in self.crop_ratio)
        for _ in range(_TRIES):
            area = choose.uniform(*self.crop_scale) * height * width
            ratio = math.exp(choose.uniform(low, high))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                top, left = choose.integers(height - down + 1), choose.integers(width - across + 1)
                return int(top), int(left), down, across
        across = min(width, round(height * self.crop_ratio[1]))
        down = min(height, round(width / self.crop_ratio[0]))
        return (height - down) // 2, (width - across) // 2, down, across

    def _jitter(self, image: Pixels, choose: np.random.Generator) -> Pixels:
        drawn = Image.fromarray(np.ascontiguousarray(image))
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for kind in choose.permutation(len(kinds)):
            factor = choose.uniform(max(0.0, 1 - self.color_jitter), 1 + self.color_jitter)
            drawn = kinds[kind](drawn).enhance(factor)
        return np.asarray(drawn)

    def _erase(self, image: Pixels, choose: np.random.Generator) -> Pixels:
        low, high = (math.log(bound) for bound in _ERASED_RATIO)
        for _ in range(_TRIES):
            area = choose.uniform(*_ERASED) * self.size**2
            ratio = math.exp(choose.uniform(low, high))
            down, across = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < down < self.size and 0 < across < self.size:
                top = int(choose.integers(self.size - down + 1))
                left = int(choose.integers(self.size - across + 1))
                erased = image.copy()
                erased[top : top + down, left : left + across] = self._fill(down, across, choose)
                return erased
        return image

    def _fill(self, down: int, across: int, choose: np.random.Generator) -> Pixels:
        """What stands in the rectangle: a normal deviate per channel, as the network sees it."""
        mean = np.array(IMAGENET_MEAN, np.float32)
        deviation = np.array(IMAGENET_STD, np.float32)
        shapes = {"pixel": (down, across, 3), "rand": (1, 1, 3), "const": None}
        shape = shapes[self.erasing_mode]
        noise = 0.0 if shape is None else choose.standard_normal(shape, np.float32)
        return np.clip(mean + deviation * noise + 0.5, 0, 255).astype(np.uint8)


def augmentation_of(config: AugmentationConfig, size: int) -> Augmentation:
    """What `[augmentation]` describes; RecipeError if timm cannot read the policy."""
    return Augmentation(
        size=size,
        crop_scale=config.crop_scale,
        crop_ratio=config.crop_ratio,
        flip=config.flip,
        color_jitter=config.color_jitter,
        policy=config.rand_augment,
        erasing=config.erasing,
        erasing_mode=config.erasing_mode,
    )


def rand_augment(policy: str, size: int) -> Any:
    """timm's RandAugment for images of `size` pixels, with the operations that crash guarded.

    Raises:
        RecipeError: timm cannot read the policy.
        MissingDependencyError: timm is not installed.
    """
    try:
        from timm.data.auto_augment import rand_augment_transform
    except ImportError as error:
        raise MissingDependencyError("timm", "torch", "RandAugment") from error
    colour = tuple(round(mean) for mean in IMAGENET_MEAN)
    options = {"translate_const": int(size * 0.45), "img_mean": colour}
    try:
        transform = rand_augment_transform(policy, options)
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f'augmentation.rand_augment "{policy}" is no policy of timm ({error}); '
            'the paper\'s is "rand-m9-mstd0.5-inc1"'
        ) from error
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            # A partial travels to loader workers on every platform; a function made here would not.
            operation.aug_fn = partial(_keeping_a_bit, operation.aug_fn)
    return transform


def _keeping_a_bit(posterize: Any, image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """Posterize with one bit at least: timm asks for none at the highest magnitudes, which Pillow
    13 refuses and earlier ones answered with a black image."""
    return posterize(image, max(1, bits), **options)


def self_check(augmentation: Augmentation) -> list[str]:
    """Try every operation of the policy at every magnitude; a sentence for each that fails.

    Versions of timm and Pillow that disagree would otherwise stop a run at a random step.
    """
    if augmentation.policy is None:
        return []
    gradient = np.linspace(0, 255, 48 * 48 * 3).reshape(48, 48, 3).astype(np.uint8)
    image, problems = Image.fromarray(gradient), []
    for operation in augmentation.policy.ops:
        kept = operation.prob, operation.magnitude, operation.magnitude_std
        operation.prob, operation.magnitude_std = 1.0, 0.0
        for magnitude in range(11):
            operation.magnitude = magnitude
            try:
                with _seeded(0):
                    operation(image)
            except Exception as error:  # whatever it is, it would stop the training
                problems.append(f"{operation.name} at magnitude {magnitude}: {error}")
                break
        operation.prob, operation.magnitude, operation.magnitude_std = kept
    return problems


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Python's and numpy's global random numbers from a seed, and afterwards as before.

    timm draws from both.
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def checked_augmentation(recipe: Recipe, size: int) -> Augmentation:
    """The recipe's augmentation, without operations that crash with the libraries installed."""
    augmentation = augmentation_of(recipe.augmentation, size)
    problems = self_check(augmentation)
    for problem in problems:
        _log.warning("left out of augmentation.rand_augment: %s", problem)
    if problems and augmentation.policy is not None:
        broken = {problem.split(" ", 1)[0] for problem in problems}
        policy = augmentation.policy
        # timm draws operations by position, so the list must keep its length: twice another one.
        working = [each for each in policy.ops if each.name not in broken]
        count = len(policy.ops)
        policy.ops = [working[number % len(working)] for number in range(count)]
    return augmentation
