"""Copying a data set that lies here to wherever fsspec can write: a bucket, another machine."""

from ovseg.data.corpus.build import Progress, silent
from ovseg.data.corpus.dataset import DATASET, HEAD, REPORT, Dataset
from ovseg.data.corpus.merging import copy_file
from ovseg.data.corpus.places import Address, open_place
from ovseg.data.corpus.shards import shard_files


def publish_dataset(folder: Address, address: Address, progress: Progress = silent) -> int:
    """Copy what is complete of a data set to `address`; return how many files were sent.

    Shards whose statistics are there already, checksum included, are skipped, so that the call
    can be repeated while the data set grows or after it broke off. The files that join all shards
    follow once the data set is finished, `dataset.json` last. Raises `DataError` if the address
    cannot be written.
    """
    dataset, target = Dataset(folder), open_place(address)
    groups = [HEAD, *(shard_files(stats.shard) for stats in dataset.complete_shards())]
    if dataset.is_finished():
        groups.append((*sorted(dataset.checksums()), REPORT, DATASET))
    last = [names[-1] for names in groups]  # says of each group that it is there
    mine, theirs = (place.read_many(last) for place in (dataset.place, target))
    sent = 0
    for done, names in enumerate(groups, 1):
        if mine[names[-1]] != theirs.get(names[-1]):
            for name in names:
                copy_file(dataset.place, target, name)
            sent += len(names)
        progress("copying", done, len(groups))
    return sent
