"""The inference rules of each family: numbers made by hand, torch, NumPy and a traced graph."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ovseg.models.scoring import (
    CAUTION,
    EVEN,
    LEAST_PLACES,
    LEAST_SHARE,
    MOST_LIKELIER,
    Cleaning,
    aligned_scores,
    dense_clip_scores,
    ovsegmentor_scores,
    starter_scores,
)

KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])


def test_two_groups_two_classes_by_hand() -> None:
    # Cosines are the identity and the scale is log 3: both softmaxes are (3/4, 1/4).
    eye = torch.eye(2)
    scale = torch.tensor(math.log(3))
    scores = ovsegmentor_scores(eye[None] * 7, torch.ones(1, 2), eye * 2, scale, 0.5)
    assert scores[0, :, 1:].flatten().tolist() == pytest.approx([9 / 16, 1 / 16, 1 / 16, 9 / 16])
    assert scores[0, :, 0].tolist() == [0, 0]


def written_out(groups, image, classes, scale, threshold):
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (groups, image, classes)]
    similarity = scale * unit[0] @ unit[2].T
    kept = sorted(range(len(classes)), key=lambda k: -float(unit[1] @ unit[2][k]))[:5]
    scores = torch.zeros_like(similarity)
    for g in range(len(groups)):
        whole = sum(math.exp(float(x)) for x in similarity[g])
        likely = sum(math.exp(float(similarity[g, k])) for k in kept)
        for k in kept:
            share = math.exp(float(similarity[g, k]))
            scores[g, k] = share / whole * share / likely
    limit = min(threshold, float(scores.max()))
    background = [1.0 if float(row.max()) < limit else 0.0 for row in scores]
    return torch.cat([torch.tensor(background).double()[:, None], scores], dim=1)


@pytest.mark.parametrize("threshold", [0.01, 0.2, 0.95])
@pytest.mark.parametrize("classes", [1, 4, 9])
def test_equals_the_rule_written_out(classes: int, threshold: float) -> None:
    torch.manual_seed(0)
    groups, images = torch.randn(2, 4, 6).double(), torch.randn(2, 6).double()
    words = torch.randn(classes, 6).double()
    found = ovsegmentor_scores(groups, images, words, torch.tensor(4.0).double(), threshold)
    for index in range(2):
        expected = written_out(groups[index], images[index], words, 4.0, threshold)
        torch.testing.assert_close(found[index], expected)


def test_the_best_group_is_never_background() -> None:
    torch.manual_seed(0)
    scores = ovsegmentor_scores(
        torch.randn(3, 4, 6), torch.randn(3, 6), torch.randn(9, 6), torch.tensor(1.0), 0.99
    )
    best = scores[..., 1:].amax(dim=-1)
    assert bool((scores[..., 0].gather(1, best.argmax(dim=1, keepdim=True)) == 0).all())
    assert float(scores[..., 0].sum()) == 3 * 3


@KINDS
def test_of_equally_likely_classes_the_first_are_kept(kind: Callable[[np.ndarray], Any]) -> None:
    """The same word may be asked for twice, or seven times."""
    groups, images, words = np.ones((1, 2, 4)), np.ones((1, 4)), np.ones((7, 4))
    words[0] *= -1
    scores = np.asarray(ovsegmentor_scores(kind(groups), kind(images), kind(words), 1.0, None))
    assert (scores[0, :, 1:] > 0).tolist() == [[False, *[True] * 5, False]] * 2


@KINDS
def test_a_bar_for_cosines_is_the_threshold_as_a_probability(
    kind: Callable[[np.ndarray], Any],
) -> None:
    positions, words = np.eye(3, dtype=np.float32)[None, :2], np.eye(3, dtype=np.float32)
    scores = np.asarray(dense_clip_scores(kind(positions), kind(words), 2.0, 0.5))
    total = math.log((math.exp(2) + 2) * 0.5)
    assert np.allclose(scores, [[[total, 2, 0, 0], [total, 0, 2, 0]]])
    for nothing in (None, 0.0):
        scores = np.asarray(dense_clip_scores(kind(positions), kind(words), 2.0, nothing))
        assert (scores[..., 0] == -np.inf).all()


# Two positions and three classes; the third class is nowhere.
PROBABILITIES = np.array([[[0.8, 0.1, 0.0], [0.02, 0.3, 0.0]]], np.float32)


def often(positions: np.ndarray) -> np.ndarray:
    """Each of [B, P, C] as often as a phrase must win to count, side by side."""
    return np.repeat(positions, LEAST_PLACES, axis=1)


@KINDS
def test_a_score_is_the_sum_of_shares_of_probabilities(kind: type) -> None:
    words = np.array([[1.0, 0.5, 0.0]], np.float32)
    found = np.asarray(starter_scores(kind(often(PROBABILITIES)), kind(words), 0.25))
    assert np.allclose(found[:, ::LEAST_PLACES], [[[0.25, 0.85], [0.25, 0.17]]])


@KINDS
def test_scores_fall_with_the_number_of_phrases_that_are_grounded(kind: type) -> None:
    one, nothing = np.array([[1.0, 0, 0]], np.float32), np.zeros((1, 3), np.float32)
    alone = np.asarray(starter_scores(kind(PROBABILITIES), kind(one), None))[..., 1]
    for others in (1, 7):
        words = np.concatenate([one, np.repeat([[0, 1.0, 0]], others, axis=0), nothing])
        found = starter_scores(kind(PROBABILITIES), kind(words.astype(np.float32)), None)
        expected = alone / (1 + others) ** CAUTION
        assert np.allclose(np.asarray(found)[..., 1], expected)
        assert (np.asarray(found)[..., -1] == 0).all()
    assert (np.asarray(starter_scores(kind(PROBABILITIES), kind(nothing), None))[..., 1] == 0).all()


@KINDS
def test_a_phrase_is_not_where_it_has_too_little_of_its_best(kind: type) -> None:
    """Each image by its own best position, and only where there is a background to fall to."""
    steps = np.float32([1.0, 1.01 * LEAST_SHARE, 0.99 * LEAST_SHARE])
    images = np.stack([steps, steps / 2])[..., None]  # [B, P, C]
    words = np.ones((1, 1), np.float32)
    found = np.asarray(starter_scores(kind(often(images)), kind(words), 0.0))[..., 1]
    found = found[:, ::LEAST_PLACES]
    assert np.allclose(found, [[1, 1.01 * LEAST_SHARE, 0], [0.5, 0.505 * LEAST_SHARE, 0]])
    everywhere = np.asarray(starter_scores(kind(images), kind(words), None))
    assert np.allclose(everywhere[..., 1], images[..., 0])
    assert (everywhere[..., 0] == -np.inf).all()


@KINDS
def test_what_a_phrase_leaves_to_the_background_is_not_another_s(kind: type) -> None:
    positions = np.float32([[[1.0, 0.0], [0.9 * LEAST_SHARE, 0.8 * LEAST_SHARE], [0, 0.01]]])
    words = np.eye(2, dtype=np.float32)
    found = np.asarray(starter_scores(kind(often(positions)), kind(words), 0.0))[0, :, 1:]
    assert np.allclose(found[::LEAST_PLACES] * 2**CAUTION, [[1, 0], [0, 0], [0, 0.01]])


@KINDS
def test_a_phrase_that_wins_a_speck_is_nowhere(kind: type) -> None:
    """Three phrases; the second wins too few places in one image, the third none."""
    few, enough = LEAST_PLACES - 1, LEAST_PLACES
    first, second = np.float32([0.9, 0.1, 0.5]), np.float32([0.1, 0.9, 0.5])
    images = np.stack(
        [np.stack([first] * (20 - count) + [second] * count) for count in (few, enough)]
    )
    words = np.eye(3, dtype=np.float32)
    found = np.asarray(starter_scores(kind(images), kind(words), 0.05))[..., 1:] * 3**CAUTION
    expected = images.copy()
    expected[0, :, 1] = 0
    assert np.allclose(found, expected)
    without = np.asarray(starter_scores(kind(images), kind(words), None))[..., 1:] * 3**CAUTION
    assert np.allclose(without, images)


@KINDS
def test_captions_change_things_by_a_power_and_give_surroundings_a_score(kind: type) -> None:
    """One class, embeddings of one number; a thing, and two words without a class."""
    positions = np.array([[[0.5, 2.0, -1.0, 3.0, -2.0, 0.02, 0.01]]], np.float32)
    thing, around = [1.0, 0.5, 1.0, 0.5, 1.0, 0.0, 0.0], [0.0, 1.5, 1.0, 1.5, 1.0, 0.0, 1.0]
    words = np.array([thing, around, [*around[:-2], 1.0, 0.0]], np.float32)
    found = np.asarray(starter_scores(kind(positions), kind(words), None, 2))[0, 0, 1:]
    likelier = math.exp(3 * 1.5 - 2)
    expected = [0.5 * math.exp(2 * 0.5 - 1) / 3**CAUTION, 0.01 * likelier, 0.02 * likelier]
    assert found == pytest.approx([score / (score + EVEN) for score in expected], rel=1e-5)
    strong = positions * np.float32([1, 100, 1, 100, 1, 1, 1])
    found = np.asarray(starter_scores(kind(strong), kind(words), None, 2))[0, 0, 1:]
    most = math.exp(MOST_LIKELIER)
    expected = [0.5 * most / 3**CAUTION, 0.01 * most, 0.02 * most]
    assert found == pytest.approx([score / (score + EVEN) for score in expected], rel=1e-5)


def ovsegmentor(groups: Any, classes: Any, threshold: Any) -> Any:
    return ovsegmentor_scores(groups, groups[:, 0], classes, 20.0, threshold)


def dense_clip(positions: Any, classes: Any, threshold: Any) -> Any:
    return dense_clip_scores(positions, classes, 100.0, threshold)


RULES = pytest.mark.parametrize("rule", [ovsegmentor, dense_clip, starter_scores])


def drawn(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups [2, 64, 16] and classes [K, 16] that every rule takes: positive, of unit length."""
    draw = np.random.default_rng(classes)
    made = [draw.random(shape, np.float32) for shape in ((2, 64, 16), (classes, 16))]
    groups, words = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in made)
    return groups, words


@RULES
@pytest.mark.parametrize("threshold", [None, 0.0, 0.3, 0.9])
@pytest.mark.parametrize("classes", [1, 4, 5, 21, 300])
def test_torch_and_numpy_agree(rule: Callable, classes: int, threshold: float | None) -> None:
    groups, words = drawn(classes)
    found = rule(groups, words, threshold)
    wanted = rule(torch.from_numpy(groups), torch.from_numpy(words), threshold)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), rtol=2e-5, atol=1e-6)
    assert (found[..., 1:] > 0).any()
    if threshold is None:
        assert (found[..., 0] == -np.inf).all()


@RULES
def test_a_traced_rule_takes_any_number_of_classes_and_any_threshold(rule: Callable) -> None:
    class Graph(torch.nn.Module):
        def forward(self, groups, classes, threshold):
            return rule(groups, classes, threshold)

    groups, words = (torch.from_numpy(x) for x in drawn(7))
    free = torch.export.Dim.DYNAMIC
    sizes = ({0: free}, {0: free}, None)
    graph = torch.export.export(Graph(), (groups, words, torch.tensor(0.5)), dynamic_shapes=sizes)
    for classes in (2, 5, 300):
        groups, words = (torch.from_numpy(x) for x in drawn(classes))
        for threshold in (None, 0.0, 0.3, 0.9):
            bound = torch.tensor(-math.inf if threshold is None else threshold)
            found = graph.module()(groups[:1], words, bound)
            torch.testing.assert_close(found, rule(groups[:1], words, threshold))


def test_an_aligned_score_is_a_sigmoid_with_a_constant_background() -> None:
    positions = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    scores = aligned_scores(positions, torch.eye(2), 10.0, -5.0, 0.4)
    expected = [[0.4, 5.0, -5.0], [0.4, 1.0, 3.0]]
    for row, wanted in zip(scores[0], expected, strict=True):
        logits = [wanted[0], *(1 / (1 + math.exp(-logit)) for logit in wanted[1:])]
        assert row.tolist() == pytest.approx(logits)
    assert (aligned_scores(positions, torch.eye(2), 10.0, -5.0, None)[..., 0] == -math.inf).all()


def cleaned_by_hand(scores, heads, attention, classes, weight):
    """Talk2DINO's rule for one image, in loops: [P, K]."""
    shares = torch.zeros_like(scores)
    for k, word in enumerate(classes):
        alike = (heads @ word).softmax(0)  # [A]
        shares[:, k] = (alike @ attention).softmax(0)
    shares = (shares - shares.min()) / shares.max()
    shares = shares * (scores.max() - scores.min()) + scores.min()
    return (scores + weight * shares) / (1 + weight)


@KINDS
def test_cleaning_equals_the_rule_written_out(kind: Callable) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)

    positions, classes, heads = drawn(2, 5, 4), drawn(3, 4), drawn(2, 6, 4)
    attention = torch.randn(2, 6, 5, generator=generator)
    clean = Cleaning(kind(heads.numpy()), kind(attention.numpy()), 0.3)
    given = kind(positions.numpy()), kind(classes.numpy()), 2.0, 0.1
    found = torch.as_tensor(aligned_scores(*given, 0.5, clean))
    plain = torch.as_tensor(aligned_scores(*given, None, clean))
    for index in range(2):
        scores = (2 * positions[index] @ classes.T + 0.1).sigmoid()
        torch.testing.assert_close(plain[index, :, 1:], scores)
        wanted = cleaned_by_hand(scores, heads[index], attention[index], classes, 0.3)
        torch.testing.assert_close(found[index, :, 1:], wanted)
