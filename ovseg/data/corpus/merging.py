"""Joining the parts of a data set that were built on several machines."""

import shutil
from collections.abc import Sequence

from ovseg.data.corpus.build import Progress, finish_if_complete, silent
from ovseg.data.corpus.dataset import HEAD, RECIPE, Dataset, Summary
from ovseg.data.corpus.places import Address, FolderPlace, Place
from ovseg.data.corpus.shards import shard_files
from ovseg.errors import DataError, UsageError


def merge_datasets(
    parts: Sequence[Address], address: Address, progress: Progress = silent
) -> Summary:
    """Copy the shards of `parts`, built with `part=(i, n)` from one source, to `address`.

    The result is byte for byte what one machine would have built. Files are linked where the
    file system allows it. Raises `UsageError` if the parts were not built with one recipe.
    """
    if not parts:
        raise UsageError("give the folders of the parts")
    found = [Dataset(part) for part in parts]
    _require_same([part.place for part in found])
    whole = Dataset(address)
    with whole.place.begin():
        if whole.place.has(RECIPE):
            _require_same([*(part.place for part in found), whole.place])
        whole.reopen()
        for name in HEAD:
            copy_file(found[0].place, whole.place, name)
        here = {stats.shard for stats in whole.complete_shards()}
        for done, part in enumerate(found, 1):
            for stats in part.complete_shards():
                if stats.shard not in here:
                    copy_shard(part.place, whole.place, stats.shard)
            progress("copying parts", done, len(found))
        return finish_if_complete(whole, progress)


def _require_same(places: Sequence[Place]) -> None:
    digests: dict[str, str] = {}
    for place in places:
        for name in HEAD:
            if not place.has(name):
                raise DataError(f"{place} has no {name}: it is no part of a data set")
            digest = place.sha256(name)
            if digests.setdefault(name, digest) != digest:
                raise UsageError(
                    f"{place} was built with another {name} than {places[0]}: "
                    "build all parts with one command but for --shard-range"
                )


def copy_shard(source: Place, target: Place, number: int) -> None:
    """Copy a shard's files, what says that it is complete last."""
    for name in shard_files(number):
        copy_file(source, target, name)


def copy_file(source: Place, target: Place, name: str) -> None:
    """Copy a file, or link it from one folder to another."""
    with target.writing(name) as path, source.at_hand(name) as original:
        if isinstance(source, FolderPlace) and isinstance(target, FolderPlace):
            path.unlink()
            try:
                path.hardlink_to(original)
                return
            except OSError:  # another file system
                path.touch()
        shutil.copyfile(original, path)
