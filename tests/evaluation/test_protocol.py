"""Protocols: shipped values, hashes, files of one's own."""

from pathlib import Path

import pytest

from ovseg.data.class_list import ClassList
from ovseg.errors import RecipeError, UsageError
from ovseg.evaluation.protocol import NAMES, load_protocol, protocol_for_model
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.inference.protocol import swept_thresholds


def a_set(name: str = "voc", vocabulary: str = "voc", background: bool = True) -> EvaluationSet:
    words = ClassList.vocabulary(vocabulary)
    return EvaluationSet(name, Path(), words, background, (), lambda _: None)


@pytest.mark.parametrize(
    ("name", "vocabulary", "threshold"),
    [("voc", "voc", 0.95), ("context", "context", 0.35), ("coco-object", "coco", 0.90)],
)
def test_groupvit_is_the_papers(name: str, vocabulary: str, threshold: float) -> None:
    protocol = load_protocol("groupvit", a_set(name, vocabulary))
    assert protocol.threshold == threshold
    assert (protocol.short_side, protocol.window, protocol.stride) == (448, 448, 224)
    assert protocol.long_side == 2048
    assert protocol.templates == ("a photo of a {}.",)


@pytest.mark.parametrize(
    ("name", "vocabulary", "background", "expected"),
    [
        ("voc", "voc", True, (336, 65, 0.1, 0.1)),
        ("voc20", "voc", False, (336, 40, 0, None)),
        ("context", "context", True, (336, 50, 0.1, None)),
        ("coco-object", "coco", True, (336, 50, 0.1, None)),
        ("ade20k", "ade20k", False, (336, 40, 0, None)),
    ],
)
def test_sclip_by_set(name: str, vocabulary: str, background: bool, expected: tuple) -> None:
    protocol = load_protocol("sclip", a_set(name, vocabulary, background))
    values = (protocol.short_side, protocol.scale, protocol.threshold, protocol.area_threshold)
    assert values == expected
    assert (protocol.window, protocol.stride, protocol.templates) == (224, 112, "imagenet80")


@pytest.mark.parametrize(
    ("name", "size", "thresholds", "words"),
    [
        ("naclip", (336, 224, 112, 1, 40), (0.1, 0.1, 0.1), (26, 1, 26)),
        ("clearclip", (448, 448, 224, 16, 50), (0.5, 0.15, 0.4), (1, 1, 1)),
        ("proxyclip", (336, 336, 112, 56, 40), (0.2, 0.15, 0.25), (26, 1, 17)),
    ],
)
def test_protocols_of_dense_heads(name: str, size: tuple, thresholds: tuple, words: tuple) -> None:
    sets = (("voc", "voc"), ("context", "context"), ("coco-object", "coco"))
    found = [load_protocol(name, a_set(*each)) for each in sets]
    for p in found:
        assert (p.short_side, p.window, p.stride, p.pad_to, p.scale) == size
        assert p.area_threshold is None
    assert tuple(p.threshold for p in found) == thresholds
    assert tuple(len(p.background_words) for p in found) == words
    assert load_protocol(name, a_set("ade20k", "ade20k", background=False)).threshold == 0


def test_sclip_words() -> None:
    voc = load_protocol("sclip", a_set())
    assert len(voc.background_words) == 26
    assert voc.class_list.names[3] == "ship"
    assert len(voc.class_list.synonyms[14]) == 7
    assert len(voc.class_list.synonyms[19]) == 5
    objects = load_protocol("sclip", a_set("coco-object", "coco"))
    assert objects.class_list.synonyms[0][0] == "person"
    assert objects.class_list.synonyms[0][-1] == "body"
    assert load_protocol("sclip", a_set("context", "context")).background_words == ("background",)
    assert load_protocol("sclip", a_set("voc20", background=False)).background_words == ()


def test_every_shipped_protocol_fits_every_word_list() -> None:
    for name in NAMES:
        for vocabulary in ("voc", "context", "ade20k"):
            protocol = load_protocol(name, a_set(vocabulary, vocabulary))
            assert len(protocol.hash) == 12


def test_the_hash_follows_what_changes_a_score() -> None:
    first = load_protocol("groupvit", a_set())
    assert first.hash == load_protocol("groupvit", a_set()).hash
    assert first.hash != load_protocol("groupvit", a_set(), {"threshold": 0.9}).hash
    assert first.hash != load_protocol("groupvit", a_set("context", "context")).hash
    assert first.hash == load_protocol("groupvit", a_set(), {"source": "elsewhere"}).hash


HASHES = {
    "own": "ac73baefb532 615a957e736d c0589b19dc1a",
    "groupvit": "0d6de1a7d760 0a3649ad7b19 0eb076fbe838",
    "tcl": "9ab33f64b7a9 237b4b55467e 91cb36b62a3e",
    "sclip": "edc2c259b202 c3888d6e1867 b9aa398deb38",
}
"""On VOC, Context and COCO-Object, since scores were first stored with them."""


@pytest.mark.parametrize("name", HASHES)
def test_hashes_of_stored_scores_stay(name: str) -> None:
    sets = (("voc", "voc"), ("context", "context"), ("coco-object", "coco"))
    found = [load_protocol(name, a_set(*each)).hash for each in sets]
    assert " ".join(found) == HASHES[name]


def test_other_backgrounds_and_refinements_have_other_hashes() -> None:
    plain = load_protocol("sclip", a_set())
    changes: list[dict[str, object]] = [
        {"background_rule": "words"},
        {"refine": "lposs"},
        {"lposs": {"neighbours": 100}},
        {"guided": {"radius": 0.1}},
        {"resample": "bicubic"},
        {"average": "probabilities"},
    ]
    hashes = {load_protocol("sclip", a_set(), change).hash for change in changes}
    assert len(hashes | {plain.hash}) == 7
    with pytest.raises(RecipeError, match="lposs"):
        load_protocol("sclip", a_set(), {"lposs": {"neighbors": 100}})


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nrule = "constant"\nshort_side = 320\n[sets.voc]\nthreshold = 0.25\n'
    )
    protocol = load_protocol(str(path), a_set())
    assert (protocol.name, protocol.short_side, protocol.threshold) == ("mine", 320, 0.25)
    assert load_protocol(str(path), a_set("voc20")).threshold is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\nrule = "loudest"', "rule: Input should be"),
        ('name = "x"\nrule = "model"\nshort_sied = 3', r"short_sied \(no such key\)"),
        ('name = "x"\nrule = "model"\nwindow = 4\nstride = 5', "the stride must be between 1 and"),
        (
            'name = "x"\nrule = "model"\ntemplates = ["a photo"]',
            "needs exactly one {} for the class",
        ),
        ('name = "x"\nrule = "model"\nwords = ["cat"]', "names 1 classes for voc, which has 20"),
        ("name = ", "no TOML"),
        ('name = "x"\nrule = "model"\nsets = 3', "sets: must be sections"),
        ('name = "x"\nrule = "model"\n[sets]\nvoc = 3', "sets: must be sections"),
        ('name = "x"\nrule = "model"\ntemplates = ["{:>1000000000}"]', "needs exactly one {}"),
        ("a = " + "[" * 3000, "nested too deeply"),
        ("a = " + "9" * 5000, "5000 digits|limit"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_protocol(str(path), a_set())


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="choose own, groupvit, tcl, sclip"):
        load_protocol("groupvip", a_set())


def test_models_come_with_the_protocol_they_were_published_under() -> None:
    assert protocol_for_model("ovsegmentor") == "groupvit"
    assert protocol_for_model("dense-clip") == "sclip"
    assert protocol_for_model("starter") == "own"


@pytest.mark.parametrize("threshold", [None, 0.0, 0.05, 0.9])
def test_thresholds_are_swept_in_even_steps(threshold: float | None) -> None:
    assert swept_thresholds(threshold) == tuple(round(0.05 * step, 2) for step in range(1, 20))


def test_a_small_threshold_is_swept_about() -> None:
    found = swept_thresholds(0.004)
    assert len(found) == 19 and found[9] == 0.004
    assert found[7] == pytest.approx(0.002) and found[11] == pytest.approx(0.008)
    assert list(found) == sorted(found)


def test_talk2dinos_protocol_cleans_where_its_authors_do() -> None:
    for name, vocabulary, cleans in (("voc", "voc", True), ("context", "context", False)):
        protocol = load_protocol("talk2dino", a_set(name, vocabulary))
        assert (protocol.threshold, protocol.clean) == (0.55, cleans)
        assert (protocol.refine, protocol.refine_windows, protocol.align_corners) == (
            "pamr", True, True,
        )  # fmt: skip
    assert protocol.pamr_dilations == (1, 2, 4, 8, 12, 24)
    assert protocol_for_model("aligned") == "own"


def test_probabilities_are_not_refined_in_windows() -> None:
    with pytest.raises(RecipeError, match="refine_windows goes with"):
        load_protocol("sclip", a_set(), {"refine_windows": True})
