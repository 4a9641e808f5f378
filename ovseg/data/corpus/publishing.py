"""Copying a data set to wherever fsspec can write: a bucket, another machine, another folder."""

from pathlib import Path
from typing import Any

import fsspec

from ovseg.data.corpus.build import Progress, silent
from ovseg.data.corpus.dataset import Dataset
from ovseg.data.corpus.shards import shard_name
from ovseg.errors import DataError

_SHARD = (".tar", ".parquet", ".tar.sha256", "_stats.json")  # what says "complete" goes last
_HEAD = ("recipe.json", "entities.toml", "plan.parquet", "plan.json")


def publish_dataset(folder: Path, address: str, progress: Progress = silent) -> int:
    """Copy what is complete of a data set to `address`; return how many files were sent.

    Shards whose statistics are there already, checksum included, are skipped, so that the call
    can be repeated while the data set grows or after it broke off. The files that join all shards
    follow once the data set is finished, `dataset.json` last. Raises `DataError` if the address
    cannot be written.
    """
    dataset = Dataset(folder)
    groups: list[tuple[str, ...]] = [_HEAD]
    groups += [
        tuple(f"{shard_name(stats.shard)}{suffix}" for suffix in _SHARD)
        for stats in dataset.complete_shards()
    ]
    if dataset.is_finished():
        groups.append((*sorted(dataset.checksums()), "report.html", "dataset.json"))
    try:
        filesystem, root = fsspec.core.url_to_fs(address)
        filesystem.makedirs(root, exist_ok=True)
        sent = 0
        for done, names in enumerate(groups, 1):
            if not _is_there(filesystem, root, folder, names[-1]):
                for name in names:
                    filesystem.put_file(str(folder / name), f"{root}/{name}")
                sent += len(names)
            progress("copying", done, len(groups))
        return sent
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"cannot write to {address}: {error}") from error


def _is_there(filesystem: Any, root: str, folder: Path, name: str) -> bool:
    """Whether the address has the same version of a file as the folder."""
    try:
        return filesystem.cat_file(f"{root}/{name}") == (folder / name).read_bytes()
    except FileNotFoundError:
        return False
