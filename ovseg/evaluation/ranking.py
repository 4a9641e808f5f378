"""Whole-image tasks of the papers' side tables: zero-shot classification and retrieval.

Letters: I image, T text, K class, C embedding width.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from ovseg.data.annotations.entries import by_id, is_below, read_document, reference
from ovseg.data.class_list import ClassList
from ovseg.data.images import SUFFIXES, Pixels, read_image, resize
from ovseg.distributed import cpu_count
from ovseg.documents import read_text
from ovseg.errors import DataError
from ovseg.evaluation.bootstrap import Interval, share_interval
from ovseg.evaluation.run import Progress
from ovseg.evaluation.sets.base import LONGEST_LIST, image_folder, read_lines
from ovseg.inference.text import EmbeddingCache
from ovseg.inference.views import normalised
from ovseg.models.enlarging import comparable
from ovseg.models.interface import GroupedImage, SegmentationModel, to_numpy

Embeddings = NDArray[np.float32]
IMAGE_SIDE = 224
"""Pixels: the shorter side is resized to this and the middle cropped, as in the papers."""

_BATCH = 32


@dataclass(frozen=True)
class HitShare:
    """A share of hits in 0..1 with its 95 % bootstrap interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Classification:
    """Zero-shot classification: share of images whose class is first, or among the first five.

    Attributes:
        model: its name.
        images, classes: how many there were.
        top1, top5: shares.
    """

    model: str
    images: int
    classes: int
    top1: HitShare
    top5: HitShare


@dataclass(frozen=True)
class Retrieval:
    """Recall at 1, 5 and 10, from image to text and from text to image.

    Attributes:
        model: its name.
        images, texts: how many there were.
        image_to_text, text_to_image: shares by 1, 5 and 10.
    """

    model: str
    images: int
    texts: int
    image_to_text: dict[int, HitShare]
    text_to_image: dict[int, HitShare]


@dataclass(frozen=True)
class LabelledImages:
    """Image files, the class of each, and the phrases of every class."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    words: ClassList


@dataclass(frozen=True)
class CaptionedImages:
    """Image files, and texts with the image each belongs to."""

    paths: tuple[Path, ...]
    texts: tuple[str, ...]
    image_of_text: tuple[int, ...]


def read_image_folder(folder: Path) -> LabelledImages:
    """An ImageNet folder: one folder of images per class, perhaps inside `val`.

    Names come from `LOC_synset_mapping.txt` or `classes.txt` beside them (`n01440764 tench, Tinca
    tinca`: the synonyms after the folder's name), or else from the folders' own names.

    Raises:
        DataError: there are no such folders, or a name is missing.
    """
    root = folder / "val" if (folder / "val").is_dir() else folder
    classes = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    paths = [[p for p in sorted(c.iterdir()) if p.suffix.lower() in SUFFIXES] for c in classes]
    if not any(paths):
        raise DataError(
            f"{folder}: expected one folder of images per class, as in ImageNet's val (6.3 GB, "
            "https://image-net.org)"
        )
    return LabelledImages(
        paths=tuple(path for of_class in paths for path in of_class),
        labels=tuple(label for label, of_class in enumerate(paths) for _ in of_class),
        words=_class_words(folder, [path.name for path in classes]),
    )


def _class_words(folder: Path, names: Sequence[str]) -> ClassList:
    for name in ("LOC_synset_mapping.txt", "classes.txt"):
        for path in (folder / name, folder.parent / name):
            if path.is_file():
                lines = read_lines(path)
                words = dict(line.split(maxsplit=1) for line in lines if len(line.split()) > 1)
                if missing := [name for name in names if name not in words]:
                    raise DataError(f"{path}: has no line for {missing[0]}")
                return _distinct(words[name].replace(",", ";") for name in names)
    return _distinct(name.replace("_", " ") for name in names)


def _distinct(entries: Iterator[str]) -> ClassList:
    """Classes from entries; a synonym that an earlier class has is left out."""
    seen: set[str] = set()
    kept: list[str] = []
    for entry in entries:
        phrases = [phrase.strip() for phrase in entry.split(";") if phrase.strip()]
        fresh = [phrase for phrase in dict.fromkeys(phrases) if phrase.casefold() not in seen]
        if not fresh:  # ImageNet has two cranes: tell them apart by a number
            fresh = [f"{phrases[0]} {len(kept)}"]
        seen |= {phrase.casefold() for phrase in fresh}
        kept.append("; ".join(fresh))
    return ClassList.of(kept)


def read_captions(folder: Path) -> CaptionedImages:
    """A captions set: COCO's `annotations/captions_*.json`, or `captions.tsv` (file<TAB>caption).

    Raises:
        DataError: neither is there, or files are missing or unreadable.
    """
    found = sorted(folder.glob("annotations/captions_*.json")) + sorted(
        folder.glob("captions_*.json")
    )
    table = folder / "captions.tsv"
    try:
        if found:
            pairs = list(_coco_captions(folder, found[-1]))
        elif table.is_file():
            lines = read_text(table, LONGEST_LIST).split("\n")
            rows = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
            pairs = [(folder / row[0], row[1]) for row in rows]
            if outside := next((row[0] for row in rows if not is_below(row[0])), None):
                raise DataError(f"{table}: {outside[:100]!r} is not a file of the folder")
        else:
            raise DataError(
                f"{folder}: expected annotations/captions_val2017.json with val2017/*.jpg "
                "(COCO, http://images.cocodataset.org/annotations/annotations_trainval2017.zip, "
                "241 MB), or captions.tsv with one line 'file<TAB>caption' each"
            )
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{folder}: captions cannot be read ({error!r})") from error
    paths = tuple(dict.fromkeys(path for path, _ in pairs))
    if absent := [path for path in paths if not os.path.isfile(path)]:
        raise DataError(f"{absent[0]}: no such image ({len(absent)} of {len(paths)} are missing)")
    place = {path: index for index, path in enumerate(paths)}
    return CaptionedImages(
        paths, tuple(text for _, text in pairs), tuple(place[path] for path, _ in pairs)
    )


def _coco_captions(folder: Path, path: Path) -> Iterator[tuple[Path, str]]:
    document = read_document(path, "COCO captions file")
    images = image_folder(folder, path.stem.removeprefix("captions_"))
    files = {n: images / e.file_name() for n, e in by_id(document.entries("images")).items()}
    for entry in document.entries("annotations"):
        number = reference(entry, "image_id", files, "image")
        yield files[number], " ".join(entry.text("caption").split())


def classify(
    model: SegmentationModel,
    data: LabelledImages,
    templates: tuple[str, ...] = (),
    on_progress: Progress | None = None,
) -> Classification:
    """Give every image the class whose best phrase is nearest to it.

    Args:
        model: its image embedding is used; the mean group where it has none.
        data: images with classes.
        templates: prompts; the model's own if empty.
        on_progress: called with images done and in all.
    """
    phrases = EmbeddingCache(model).get(data.words.phrases, templates or model.templates)
    similarity = _unit(embed_images(model, data.paths, on_progress)) @ _unit(phrases).T  # [I, Q]
    owner = np.array(data.words.phrase_labels) - 1
    starts = np.searchsorted(owner, np.arange(len(data.words.names)))
    by_class = np.maximum.reduceat(similarity, starts, axis=1)  # [I, K]
    rank = _rank(by_class, np.array(data.labels))
    return Classification(
        model=model.card.name,
        images=len(data.paths),
        classes=len(data.words.names),
        top1=_share(rank < 1),
        top5=_share(rank < 5),
    )


def retrieve(
    model: SegmentationModel, data: CaptionedImages, on_progress: Progress | None = None
) -> Retrieval:
    """Find texts by image and images by text; a hit is any of the right ones among the first."""
    images = _unit(embed_images(model, data.paths, on_progress))  # [I, C]
    texts = _unit(_embed_texts(model, data.texts))  # [T, C]
    return recalls(images @ texts.T, np.array(data.image_of_text), model.card.name)


def recalls(
    similarity: NDArray[np.floating], image_of_text: NDArray[np.integer], model: str
) -> Retrieval:
    """Recall at 1, 5 and 10 both ways.

    Args:
        similarity: how well each text fits each image, [I, T].
        image_of_text: the image each text belongs to, [T]; every image has one at least.
        model: its name.
    """
    of_text = _rank(similarity.T, image_of_text)  # [T]
    by_rank = np.argsort(-similarity, axis=1, kind="stable")
    right = image_of_text[by_rank] == np.arange(len(similarity))[:, None]
    of_image = right.argmax(axis=1)  # rank of the first right text, [I]
    return Retrieval(
        model=model,
        images=similarity.shape[0],
        texts=similarity.shape[1],
        image_to_text={k: _share(of_image < k) for k in (1, 5, 10)},
        text_to_image={k: _share(of_text < k) for k in (1, 5, 10)},
    )


def embed_images(
    model: SegmentationModel, paths: Sequence[Path], on_progress: Progress | None = None
) -> Embeddings:
    """One embedding per image file, float32 [I, C]."""
    parts = []
    with ThreadPoolExecutor(max_workers=min(8, cpu_count() + 1)) as pool:
        for start in range(0, len(paths), _BATCH):
            crops = list(pool.map(_read_crop, paths[start : start + _BATCH]))
            values = np.stack([normalised(crop, model.preprocessing) for crop in crops])
            parts.append(_image_embedding(model.encode_image(model.from_numpy(values))))
            if on_progress:
                on_progress(min(start + _BATCH, len(paths)), len(paths))
    return np.concatenate(parts)


def _image_embedding(grouped: GroupedImage) -> Embeddings:
    embedding = grouped.image_embedding
    if embedding is None:
        xp = array_namespace(grouped.embedding)
        embedding = xp.mean(comparable(grouped), axis=1)
    return to_numpy(embedding).astype(np.float32)


def _read_crop(path: Path) -> Pixels:
    """The middle of an image at the papers' size, uint8 [IMAGE_SIDE, IMAGE_SIDE, 3]."""
    image = read_image(path)
    height, width = image.shape[:2]
    scale = IMAGE_SIDE / min(height, width)
    rows, columns = (max(round(side * scale), IMAGE_SIDE) for side in (height, width))
    resized = resize(image, (rows, columns))
    top, left = (rows - IMAGE_SIDE) // 2, (columns - IMAGE_SIDE) // 2
    return resized[top : top + IMAGE_SIDE, left : left + IMAGE_SIDE]


def _embed_texts(model: SegmentationModel, texts: Sequence[str]) -> Embeddings:
    """Captions are texts already: no template, and no cache, since none comes twice."""
    size = 256
    parts = [
        to_numpy(model.encode_text(texts[start : start + size], ("{}",)))
        for start in range(0, len(texts), size)
    ]
    return np.concatenate(parts).astype(np.float32)


def _rank(similarity: NDArray[np.floating], right: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many columns of each row come before the right one; of equals the first comes first."""
    rows = np.arange(len(similarity))
    own = similarity[rows, right][:, None]
    before = (similarity == own) & (np.arange(similarity.shape[1]) < right[:, None])
    return ((similarity > own) | before).sum(axis=1)


def _share(hits: NDArray[np.bool_]) -> HitShare:
    return HitShare(float(hits.mean()), share_interval(hits))


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
