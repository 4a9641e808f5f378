"""The feature cache: keyed, resumed, shared, verified, and what it needs of the disk."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.config.schema import Recipe
from ovseg.data.images import decode
from ovseg.errors import DataError
from ovseg.models.aligned.assembly import build_aligned
from ovseg.training.aligned import features as module
from ovseg.training.aligned.encoding import middle
from ovseg.training.aligned.features import Features, features_of
from ovseg.training.step import normalised
from tests.training.aligned.tiny_recipes import tiny
from tests.training.processes import clean_context
from tests.training.scenes import make_scenes

CPU = torch.device("cpu")


def quiet(what: str, done: int, total: int | None) -> None:
    """Nobody watches."""


def opened(recipe: Recipe) -> Features:
    torch.manual_seed(recipe.train.seed)
    return features_of(recipe, build_aligned(recipe.model, pretrained=True), CPU)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PHOTOS", 8)
    monkeypatch.setattr(module, "_TEXTS", 32)


def test_features_are_those_of_the_towers(photos: Path, tmp_path: Path) -> None:
    found = opened(tiny("align-dinov2-s", photos, tmp_path, "data.held_out=8"))
    found.make(quiet)
    order = found.photos
    views = found.rows("view-0", "tokens")
    assert len(views) == 40 and views.longest == 16 and views.width == 16
    for photo in (0, 17, 39):
        pixels = middle(decode(order.index.image(int(order.begins[photo]))), 32)
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        expected = found.model.vision.features(normalised(tensor)).tokens[0].numpy()
        assert np.allclose(views[photo], expected, atol=2e-3)
    captions = found.rows("captions", "sentence")
    texts = [order.index.pair(row).caption for row in (5, 60)]
    tokens = found.texts.tokenizer(texts)
    with torch.no_grad():
        sentences = found.model.text(tokens.ids, tokens.mask).sentence.numpy()
    assert np.allclose(captions.take([5, 60])[0][:, 0], sentences, atol=2e-3)


def test_views_differ_and_are_the_same_again(photos: Path, tmp_path: Path) -> None:
    made = []
    crops = ("data.views=3", "augmentation.crop_scale=[0.3, 0.9]")
    for cache in ("a", "b"):
        found = opened(tiny("align-dinov2-s", photos, tmp_path / cache, *crops))
        found.make(quiet)
        made.append([found.rows(f"view-{view}", "tokens").take(range(32))[0] for view in range(3)])
    assert all(np.array_equal(x, y) for x, y in zip(*made, strict=True))
    assert not np.array_equal(made[0][1], made[0][2])


def test_fewer_photos_take_the_beginning(photos: Path, tmp_path: Path) -> None:
    few = opened(tiny("align-dinov2-s", photos, tmp_path, "data.held_out=8", "data.photos=8"))
    few.make(quiet)
    assert len(few.rows("view-0", "tokens")) == 16
    many = opened(tiny("align-dinov2-s", photos, tmp_path, "data.held_out=8"))
    missing = [shard for shard in many.missing() if shard[0] == "view-0"]
    assert missing == [("view-0", 2), ("view-0", 3), ("view-0", 4)]


@pytest.mark.parametrize(
    "change",
    [
        "train.seed=1",  # other weights of the towers
        "model.aligned.vision.image_size=40",
        "model.aligned.vision.attention_scale=0.5",
    ],
)
def test_whatever_changes_a_view_changes_its_key(change: str, photos: Path, tmp_path: Path) -> None:
    plain = opened(tiny("align-dinov2-s", photos, tmp_path))
    other = opened(tiny("align-dinov2-s", photos, tmp_path, change))
    assert plain.sets["view-0"].key != other.sets["view-0"].key


def test_what_changes_nothing_keeps_the_key(photos: Path, tmp_path: Path) -> None:
    plain = opened(tiny("align-dinov2-s", photos, tmp_path))
    other = opened(
        tiny("align-dinov2-s", photos, tmp_path, "loss.words.weight=0.5", "data.held_out=8")
    )
    assert {n: s.key for n, s in plain.sets.items()} == {n: s.key for n, s in other.sets.items()}
    flipped = opened(tiny("align-dinov2-s", photos, tmp_path, "augmentation.flip=0.0"))
    assert plain.sets["view-0"].key == flipped.sets["view-0"].key
    assert plain.sets["view-1"].key != flipped.sets["view-1"].key


def test_damaged_and_missing_shards_are_made_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "notes"))
    found = opened(tiny("align-dinov2-s", photos, tmp_path / "cache"))
    found.make(quiet)
    assert found.missing() == [] and found.need().missing == 0
    folder = found.sets["view-0"].folder(found.cache)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    path = folder / "000001.tokens.npy"
    path.write_bytes(path.read_bytes()[:-3])
    (folder / "000002_stats.json").write_text("{half")
    assert found.missing() == [("view-0", 1), ("view-0", 2)]
    assert found.need().photos == 16
    found.make(quiet)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_processes_make_each_their_share(photos: Path, tmp_path: Path) -> None:
    recipe = tiny("align-dinov2-s", photos, tmp_path / "two")
    for rank in range(2):
        opened(recipe).make(quiet, rank, 2)
    assert opened(recipe).missing() == []
    one = opened(tiny("align-dinov2-s", photos, tmp_path / "one"))
    one.make(quiet)
    two = {path.name: path.read_bytes() for path in (tmp_path / "two").rglob("*.npy")}
    assert two == {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*.npy")}


def _killed_while_writing(recipe: Recipe) -> None:
    torch.set_num_threads(1)
    module._PHOTOS, module._TEXTS = 8, 32

    def kill(what: str, done: int, total: int | None) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    opened(recipe).make(kill)


def test_goes_on_after_a_kill(photos: Path, tmp_path: Path) -> None:
    recipe = tiny("align-dinov2-s", photos, tmp_path / "cache")
    process = clean_context().Process(target=_killed_while_writing, args=(recipe,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    found = opened(recipe)
    kept = len(found.missing())
    told: list[tuple] = []
    found.make(lambda *progress: told.append(progress))
    assert told[-1][1:] == (kept, kept) and found.missing() == []
    assert sum(len(each.shards) for each in found.sets.values()) == kept + 2


@pytest.mark.slow
def test_several_workers_write_the_same(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # workers have shards of the usual size
    alone = opened(tiny("align-dinov2-s", photos, tmp_path / "a"))
    alone.make(quiet)
    together = opened(tiny("align-dinov2-s", photos, tmp_path / "b", "data.workers=2"))
    together.make(quiet)
    for name in alone.sets:
        field = next(iter(alone.sets[name].widths))
        one, two = alone.rows(name, field), together.rows(name, field)
        for row in range(len(one)):
            assert np.allclose(one[row], two[row], atol=2e-3)


def test_photos_that_cannot_be_read_have_a_reason(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "data", pairs=16, captions=2, bad=(3,))
    found = opened(tiny("align-dinov2-s", data, tmp_path / "cache", "data.held_out=0"))
    found.make(quiet)
    views = found.rows("view-0", "tokens")
    (photo,) = views.problems
    assert views.lengths[photo] == 0 and "not an image" in views.problems[photo]
    assert found.photos.index.locators()[int(found.photos.begins[photo])] == "made/3"


def test_the_need_is_said_before_and_checked(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(tiny("align-dinov2-s", photos, tmp_path))
    need = found.need()
    on_disk = 40 * 2 * (16 * 16 * 2) + (120 + 20) * 16 * 2
    assert need.total == need.missing == on_disk and need.photos == 80
    told: list[tuple] = []
    found.make(lambda *progress: told.append(progress))
    assert told[0][0].startswith("features take 0.00 GB in ")
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.npy"))
    assert on_disk < written < on_disk + 20 * 128  # the headers of the files

    class Full:
        free = 10

    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Full)
    other = opened(tiny("align-dinov2-s", photos, tmp_path / "other"))
    with pytest.raises(DataError, match="GB are free: name another folder"):
        other.make(quiet)
