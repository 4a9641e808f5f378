"""Joining the parts of a data set that were built on several machines."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from ovseg.data.corpus.build import Progress, finish_if_complete, silent
from ovseg.data.corpus.dataset import Dataset, Summary
from ovseg.data.corpus.shards import read_stats, shard_name
from ovseg.errors import DataError, UsageError
from ovseg.files import replacing, sha256

_HEAD = ("recipe.json", "entities.toml", "plan.parquet", "plan.json")
# The statistics come last: their presence says that the rest is there.
_SHARD = (".tar", ".parquet", ".tar.sha256", "_stats.json")


def merge_datasets(parts: Sequence[Path], folder: Path, progress: Progress = silent) -> Summary:
    """Copy the shards of `parts`, built with `part=(i, n)` from one source, into `folder`.

    The result is byte for byte what one machine would have built. Files are linked where the
    file system allows it. Raises `UsageError` if the parts were not built with one recipe.
    """
    if not parts:
        raise UsageError("give the folders of the parts")
    _require_same(parts)
    dataset = Dataset(folder)
    with dataset.locked():
        dataset.remove_leftovers()
        if (folder / "recipe.json").is_file():
            _require_same([*parts, folder])
        dataset.reopen()
        for name in _HEAD:
            _copy(parts[0] / name, folder / name)
        for done, part in enumerate(parts, 1):
            _copy_shards(part, folder)
            progress("copying parts", done, len(parts))
        return finish_if_complete(dataset, progress)


def _require_same(parts: Sequence[Path]) -> None:
    digests: dict[str, str] = {}
    for part in parts:
        for name in _HEAD:
            if not (part / name).is_file():
                raise DataError(f"{part} has no {name}: it is no part of a data set")
            if digests.setdefault(name, sha256(part / name)) != sha256(part / name):
                raise UsageError(
                    f"{part} was built with another {name} than {parts[0]}: "
                    "build all parts with one command but for --shard-range"
                )


def _copy_shards(part: Path, folder: Path) -> None:
    for path in sorted(part.glob("*_stats.json")):
        number = int(path.name.removesuffix("_stats.json"))
        if read_stats(part, number) is None or read_stats(folder, number) is not None:
            continue
        for suffix in _SHARD:
            name = f"{shard_name(number)}{suffix}"
            _copy(part / name, folder / name)


def _copy(source: Path, target: Path) -> None:
    if target.is_file() and sha256(target) == sha256(source):
        return
    with replacing(target) as temporary:
        temporary.unlink()
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)
