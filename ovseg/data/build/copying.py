"""Copying what is built: the parts of several machines into one, a data set to another place."""

import shutil
from collections.abc import Sequence

from ovseg.data.build.pipeline import finish_if_complete
from ovseg.data.dataset.folder import (
    CHECKED,
    DATASET,
    HEAD,
    RECIPE,
    REPORT,
    Dataset,
    DatasetSummary,
)
from ovseg.data.dataset.shards import shard_files
from ovseg.data.store import Address, FolderStore, Store, open_store
from ovseg.data.workers import Progress, silent
from ovseg.errors import DataError, UsageError


def merge_datasets(
    parts: Sequence[Address], address: Address, progress: Progress = silent
) -> DatasetSummary:
    """Copy the shards of `parts`, built with `part=(i, n)` from one source, to `address`.

    The result is byte for byte what one machine would have built. Files are linked where the
    file system allows it. Raises `UsageError` if the parts were not built with one recipe.
    """
    if not parts:
        raise UsageError("give the folders of the parts")
    found = [Dataset(part) for part in parts]
    _require_same([part.store for part in found])
    whole = Dataset(address)
    with whole.store.begin():
        if whole.store.has(RECIPE):
            _require_same([*(part.store for part in found), whole.store])
        whole.reopen()
        for name in HEAD:
            copy_file(found[0].store, whole.store, name)
        whole.remove_leftovers()
        here = {stats.shard for stats in whole.complete_shards()}
        for done, part in enumerate(found, 1):
            for stats in part.complete_shards():
                if stats.shard not in here:
                    copy_shard(part.store, whole.store, stats.shard)
            progress("copying parts", done, len(found))
        return finish_if_complete(whole, progress)


def _require_same(stores: Sequence[Store]) -> None:
    digests: dict[str, str] = {}
    for store in stores:
        for name in HEAD:
            if not store.has(name):
                raise DataError(f"{store} has no {name}: it is no part of a data set")
            digest = store.sha256(name)
            if digests.setdefault(name, digest) != digest:
                raise UsageError(
                    f"{store} was built with another {name} than {stores[0]}: "
                    "build all parts with one command but for --shard-range"
                )


def copy_shard(source: Store, target: Store, number: int) -> None:
    """Copy a shard's files, what says that it is complete last."""
    for name in shard_files(number):
        copy_file(source, target, name)


def copy_file(source: Store, target: Store, name: str) -> None:
    """Copy a file, or link it from one folder to another.

    Raises:
        DataError: it is a link that leads out of its folder, to what may be anybody's file.
    """
    if isinstance(source, FolderStore) and not source.path(name).resolve().is_relative_to(
        source.folder.resolve()
    ):
        raise DataError(f"{source}/{name} is a link out of the data set: put the file itself there")
    with target.writing(name) as path, source.local_path(name) as original:
        if isinstance(source, FolderStore) and isinstance(target, FolderStore):
            path.unlink()
            try:
                path.hardlink_to(original)
                return
            except OSError:  # another file system
                path.touch()
        shutil.copyfile(original, path)


def publish_dataset(folder: Address, address: Address, progress: Progress = silent) -> int:
    """Copy what is complete of a data set to `address`; return how many files were sent.

    Shards whose statistics are there already, checksum included, are skipped, so that the call
    can be repeated while the data set grows or after it broke off. The files that join all shards
    follow once the data set is finished, `dataset.json` last.

    Raises:
        DataError: the address cannot be written, or the data set is damaged.
        UsageError: something else is there already.
    """
    dataset, target = Dataset(folder), open_store(address)
    if missing := [name for name in HEAD if not dataset.store.has(name)]:
        raise DataError(f"{dataset.store} has no {missing[0]}: it is no data set")
    _require_own_place(dataset.store, target)
    groups = [HEAD, *(shard_files(stats.shard) for stats in dataset.complete_shards())]
    if dataset.is_finished():
        groups.append((*sorted(dataset.checksums()), REPORT, DATASET))
    last = [names[-1] for names in groups]  # says of each group that it is there
    mine, theirs = (store.read_many(last) for store in (dataset.store, target))
    sent = 0
    with target.begin():
        for done, names in enumerate(groups, 1):
            if mine[names[-1]] != theirs.get(names[-1]):
                for name in names:
                    copy_file(dataset.store, target, name)
                sent += len(names)
            if done == 1 and isinstance(target, FolderStore):  # now it is known to be ours
                Dataset(target).remove_leftovers()
            progress("copying", done, len(groups))
    return sent


def _require_own_place(source: Store, target: Store) -> None:
    """UsageError where files would be written over that are not of this data set."""
    there = target.sizes((*HEAD, *CHECKED, REPORT, DATASET))
    if there and (RECIPE not in there or target.read(RECIPE) != source.read(RECIPE)):
        name = RECIPE if RECIPE in there else min(there)
        raise UsageError(f"{target} holds another {name}: give an empty place, or this data set's")
