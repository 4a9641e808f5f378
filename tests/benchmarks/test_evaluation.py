"""Speed of the evaluation: the metric, and the whole way from files to scores.

    pytest tests/benchmarks/test_evaluation.py --benchmark-only -s
    OMP_NUM_THREADS=1 pytest tests/benchmarks/test_evaluation.py --benchmark-only -s

The end-to-end figure is a ratio within one run: the scheme of the reference implementation (batch
1, the encoder twice per window, score maps of all classes at full size, three histograms per image)
against this one, on the same random weights, pictures and threads, with equal label maps.
"""

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from ovseg.config.schema import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from ovseg.data.images import read_image
from ovseg.evaluation.overlap import confusion_matrix
from ovseg.evaluation.protocol import load_protocol
from ovseg.evaluation.run import Run, evaluate_chunks, predictions
from ovseg.evaluation.sets.base import EvaluationSample, EvaluationSet
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.inference.protocol import Protocol
from ovseg.models.interface import ModelCard
from ovseg.models.ovsegmentor.build import build_ovsegmentor
from ovseg.models.ovsegmentor.predictor import Predictor
from tests.benchmarks.sizes import full
from tests.evaluation.sets import tiny

IMAGES = full(4, 1)
ROUNDS = full(3, 1)
SIZE = (375, 500)


def label_maps(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Regions of a few dozen pixels, as real label maps have them, with some ignored."""
    generator = np.random.default_rng(0)
    maps = []
    for _ in range(2):
        coarse = generator.integers(0, classes, (12, 16)).astype(np.uint8)
        maps.append(cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_NEAREST))
    maps[0][:, :20] = 255
    return maps[0], maps[1]


def three_histograms(
    target: torch.Tensor, prediction: torch.Tensor, classes: int
) -> tuple[torch.Tensor, ...]:
    """Intersection, truth and prediction of every class, each by a histogram of floats."""
    counted = target != 255
    target, prediction = target[counted], prediction[counted]
    same = prediction[prediction == target]
    return tuple(
        torch.histc(labels.float(), bins=classes, min=0, max=classes - 1)
        for labels in (same, target, prediction)
    )


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("classes", [21, 171])
def test_metric(benchmark, library: str, classes: int) -> None:
    """Confusion matrix of one 500x375 image; target: at most 0.5 ms."""
    target, prediction = label_maps(classes)
    expected = three_histograms(torch.from_numpy(target), torch.from_numpy(prediction), classes)
    if library == "torch":
        target, prediction = torch.from_numpy(target), torch.from_numpy(prediction)
    matrix = benchmark(confusion_matrix, target, prediction, classes)
    assert np.diagonal(np.asarray(matrix)).tolist() == expected[0].int().tolist()


def test_three_histograms(benchmark) -> None:
    """What the metric of the reference takes, for comparison."""
    target, prediction = (torch.from_numpy(labels) for labels in label_maps(21))
    benchmark(three_histograms, target, prediction, 21)


class RandomModel(Predictor):
    """An OVSegmentor of ViT-S size with random weights, and class embeddings by their words."""

    def encode_text(self, phrases, templates) -> torch.Tensor:
        rows = [
            torch.randn(256, generator=torch.Generator().manual_seed(sum(map(ord, phrase))))
            for phrase in phrases
        ]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def random_model() -> RandomModel:
    torch.manual_seed(0)
    text = TextEncoderConfig(
        encoder="",
        tokenizer="bytes",
        architecture="bert",
        width=64,
        depth=1,
        heads=4,
        mlp_width=64,
        vocab_size=300,
        max_positions=96,
    )
    image = ImageEncoderConfig(backbone="", width=384, heads=6, depths=full((6, 6), (1, 1)))
    network = build_ovsegmentor(ModelConfig(image=image, text=text))
    with torch.no_grad():  # as after training: groups that differ, and a scale that decides
        for parameter in network.image_encoder.parameters():
            parameter.mul_(3.0)
    card = ModelCard("random", "ovsegmentor", "random weights", "CC0-1.0", "random" * 8)
    return RandomModel(network, None, card)


def pictures(root: Path, classes: int) -> EvaluationSet:
    """A folder of noisy pictures with label maps."""
    generator = np.random.default_rng(1)
    for index in range(IMAGES):
        coarse = generator.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        photo = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        tiny.photo(root / f"images/{index}.jpg", photo)
        tiny.index_png(root / f"labels/{index}.png", label_maps(classes)[0])
    names = ["background", *(f"class {index}" for index in range(1, classes))]
    tiny.text(root / "classes.txt", "\n".join(names))
    return open_set("folder", root)


def reference_labels(
    model: RandomModel, embeddings: torch.Tensor, protocol: Protocol, sample: EvaluationSample
) -> torch.Tensor:
    """One image, window after window, with the encoder twice in each."""
    image = read_image(sample.image)
    height, width = image.shape[:2]
    side, stride = protocol.window, protocol.stride
    scale = protocol.short_side / min(height, width)
    rows, columns = int(height * scale + 0.5), int(width * scale + 0.5)
    if side > max(rows, columns):  # one pass, which needs whole patches
        rows, columns = (16 * round(length / 16) for length in (rows, columns))
    pixels = cv2.resize(image, (columns, rows)).astype(np.float32)
    rule = model.preprocessing
    pixels = (pixels - np.array(rule.mean, np.float32)) / np.array(rule.std, np.float32)
    pixels = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    total = torch.zeros(1, len(embeddings) + 1, rows, columns)
    times = torch.zeros(1, 1, rows, columns)
    for i in range(max(rows - side + stride - 1, 0) // stride + 1):
        for j in range(max(columns - side + stride - 1, 0) // stride + 1):
            bottom, right = min(i * stride + side, rows), min(j * stride + side, columns)
            top, left = max(bottom - side, 0), max(right - side, 0)
            crop = pixels[:, :, top:bottom, left:right]
            grouped = model.encode_image(crop)  # once for the groups' embeddings
            maps = model.encode_image(crop)  # and once for the assignment
            scores = model.score(grouped, embeddings, protocol.threshold)[0]  # [G, 1 + K]
            shares = maps.assignment.reshape(1, -1, *maps.grid)
            groups = interpolate(shares, crop.shape[2:], mode="bilinear")[0].argmax(0)
            window = scores[groups].permute(2, 0, 1)  # [1 + K, side, side]
            total[0, :, top:bottom, left:right] += window
            times[..., top:bottom, left:right] += 1
    return interpolate(total / times, (height, width), mode="bilinear")[0].argmax(0)


@pytest.mark.parametrize("windows", ["sliding", "whole"])
@pytest.mark.parametrize("classes", [21, 81, 171])
def test_end_to_end(benchmark, tmp_path: Path, classes: int, windows: str) -> None:
    """From image files to counts; target: at least 2.5 times the reference's speed."""
    evaluated = pictures(tmp_path, classes)
    model = random_model()
    sides = {"window": 640, "stride": 640} if windows == "whole" else {}
    protocol = load_protocol("groupvit", evaluated, {"threshold": 0.5, **sides})
    embeddings = model.encode_text(protocol.class_list.phrases, protocol.templates)
    run = Run(model, evaluated, protocol)
    ours = {loaded.sample.name: labels for loaded, labels in predictions(run, evaluated.samples)}

    def by_reference() -> None:
        for sample in evaluated.samples:
            labels = reference_labels(model, embeddings, protocol, sample)
            three_histograms(torch.from_numpy(evaluated.read_labels(sample)), labels, classes)
            assert (labels.numpy() == ours[sample.name]).all()

    def by_us() -> None:
        list(evaluate_chunks(run, [evaluated.samples]))

    # In turns, and the best of each: other work on the machine disturbs both alike.
    times = [(seconds(by_reference), seconds(by_us)) for _ in range(ROUNDS)]
    benchmark.pedantic(by_us, rounds=1)
    reference, own = (np.min(column, axis=0) for column in zip(*times, strict=True))
    benchmark.extra_info["ratio of time"] = reference[0] / own[0]
    benchmark.extra_info["ratio of processor time"] = reference[1] / own[1]
    print(
        f"\n{classes} classes, {windows}, {IMAGES} images, {torch.get_num_threads()} threads: ref "
        f"{reference[0]:.2f} s, ours {own[0]:.2f} s, {reference[0] / own[0]:.2f} times as fast; "
        f"by processor time {reference[1] / own[1]:.2f} times"
    )


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and processor time of some work."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]
