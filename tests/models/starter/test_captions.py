"""What captions taught about the starter's features."""

from collections import Counter

import pytest
import torch

from ovseg.models.starter.captions import FEATURES, IMAGE, THINGS, WIDTH, CaptionReader, log_sum_exp
from ovseg.models.starter.model import StarterModel
from ovseg.models.starter.reader import ReadingRule
from ovseg.models.starter.words import WordTable
from tests.models.starter.test_starter import load_tool


def reader() -> CaptionReader:
    torch.manual_seed(0)
    made = CaptionReader(3)
    made.reference.copy_(torch.nn.functional.normalize(torch.randn(3, WIDTH), dim=-1))
    made.frequency.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
    made.scale.fill_(10.0)
    return made.eval()


def test_a_product_is_how_much_likelier_a_word_is_than_all_words() -> None:
    made = reader()
    position, other = torch.nn.functional.normalize(torch.randn(2, 1, 1, WIDTH), dim=-1)
    image = torch.nn.functional.normalize(torch.randn(1, WIDTH), dim=-1)
    things, around = made.compared(position, other, image)
    word = torch.nn.functional.normalize(torch.randn(WIDTH), dim=-1)
    with_one = torch.cat([word, torch.ones(1)])

    def likelier(embedding: torch.Tensor) -> torch.Tensor:
        all_words = (made.frequency.exp() * (10 * made.reference @ embedding).exp()).sum()
        return 10 * embedding @ word - all_words.log()

    here, whole = likelier(position[0, 0]), likelier(image[0])
    assert torch.allclose(around[0, 0] @ with_one, likelier(other[0, 0]), atol=1e-5)
    assert torch.allclose(things[0, 0] @ with_one, THINGS * here + IMAGE * whole, atol=1e-5)


def test_both_scales_count_alike() -> None:
    made = reader()
    fine, coarse = torch.randn(2, FEATURES, 4, 4), torch.randn(2, FEATURES, 2, 2)
    found, alone = made(fine, coarse, 4), made(fine, fine, 4)
    assert found.positions.shape == (2, 16, WIDTH) and found.image.shape == (2, WIDTH)
    assert torch.allclose(alone.positions.norm(dim=-1), torch.ones(2, 16), atol=1e-5)
    other = 2 * found.positions - alone.positions  # what the half-sized image adds, enlarged
    assert other.norm(dim=-1).max() < 1 + 1e-5


def test_the_logarithm_of_a_sum_is_taken_by_a_softmax() -> None:
    values = torch.tensor([[3.0, 1.0, -200.0], [1e4, 1e4, 0.0]])
    torch.testing.assert_close(log_sum_exp(values), values.logsumexp(dim=-1, keepdim=True))


def test_surroundings_are_told_where_things_are_not() -> None:
    """Of plain colours: the sky is blue above, the snow white; a cat is neither."""
    model, words = StarterModel(), ["sky", "snow", "cat"]
    pixels = (torch.tensor([110, 165, 235.0]).reshape(1, 3, 1, 1) / 127.5 - 1).expand(1, 3, 64, 96)
    text = model.encode_text(words, model.templates)
    scores = model.score(model.encode_image(pixels), text, None)[0, :, 1:].mean(dim=0)
    assert scores[0] > scores[2]


def test_surroundings_are_mixed_apart_from_things() -> None:
    """What positions are to things does not depend on how surroundings are mixed."""
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rules = (ReadingRule(), ReadingRule(around_sharpness=6.5, around_middle=0.0))
    shipped, alike = (StarterModel(rule).encode_image(pixels).embedding for rule in rules)
    around = slice(-(WIDTH + 1), None)
    assert not torch.allclose(shipped[..., around], alike[..., around], atol=0.1)
    assert torch.allclose(shipped[..., : around.start], alike[..., : around.start], atol=1e-5)
    # Mixed as things are, all that differs is the power of things and what the photo is.
    apart = alike[..., around.start - (WIDTH + 1) : around.start] - THINGS * alike[..., around]
    assert apart.std(dim=1).max() < 1e-4


def test_a_photo_has_the_words_of_all_its_captions() -> None:
    tool = load_tool("make_starter_captions")
    captions = [{"entities": [{"name": "dog"}, {"name": "dog"}]}, {"entities": [{"name": "sky"}]}]
    assert tool.words_of({"entities": [], "captions": captions}) == {"dog", "sky"}
    assert tool.words_of(captions[1]) == {"sky"}


def test_trust_grows_with_the_photos_of_a_word() -> None:
    tool = load_tool("make_starter_captions")
    counts = Counter({"dog": 10, "cat": 90})
    assert tool.trust(["cat", "dog", "okapi"], counts).tolist() == pytest.approx([0.92, 0.6, 0.2])
    shares = tool.frequencies(Counter({"cat": 1, "bat": 1, "dog": 50}), 100)
    assert list(shares.items()) == [("dog", 0.5), ("bat", 0.01), ("cat", 0.01)]


def test_all_words_have_vectors() -> None:
    words = WordTable()
    assert words.captions == WIDTH + 1
    assert words.embedding(words.words[-1]).shape == (words.width,)
