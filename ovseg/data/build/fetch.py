"""Building the shards whose images are on the web, through img2dataset, behind our guard."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from ovseg.data.build.engine import LOCAL, PYSPARK, Engine, connected
from ovseg.data.build.jobs import ShardJob
from ovseg.data.dataset.shards import ShardStats, read_stats
from ovseg.data.guard import FetchOptions
from ovseg.errors import DataError, MissingDependencyError


def fetch_shards(
    jobs: Sequence[ShardJob], options: FetchOptions, engine: Engine
) -> Iterator[ShardStats]:
    """Fetch the images of each job's rows and write its shard.

    img2dataset's downloader does it, with the guard installed in the process it runs in, our
    check and resizing in place of its own, and our writer. Local processes are ours; PySpark and
    Ray are img2dataset's distributors (there the place must be one that all machines see).

    Raises `DataError` if shards are missing at the end; the same call fetches only those.
    """
    if not jobs:
        return
    if find_spec("img2dataset") is None:
        raise MissingDependencyError("img2dataset", "download", "fetching images")
    # albumentations, which img2dataset imports, would ask the web for its newest version.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from ovseg.data.build.img2dataset_worker import GuardedDownloader

    downloader = GuardedDownloader(jobs, options)
    numbers = [(job.number, "") for job in jobs]
    if engine.kind == LOCAL:
        for _, (number, _) in engine.run(downloader, numbers):
            yield from read_stats(jobs[0].store, [number]).values()
    else:
        _distribute(downloader, numbers, engine)
    here = read_stats(jobs[0].store, [job.number for job in jobs])
    missing = [job.number for job in jobs if job.number not in here]
    if missing:
        raise DataError(
            f"{len(missing)} shards could not be built, the first is {missing[0]}: "
            "run the same command again"
        )


def _distribute(downloader: object, numbers: list[tuple[int, str]], engine: Engine) -> None:
    """Hand the shards to a distributor of img2dataset; what it prints goes to stderr."""
    from img2dataset.distributor import pyspark_distributor, ray_distributor

    if engine.kind == PYSPARK and find_spec("pyspark") is None:
        raise MissingDependencyError("pyspark", "spark", "the engine pyspark")
    distributor = pyspark_distributor if engine.kind == PYSPARK else ray_distributor
    with contextlib.redirect_stdout(sys.stderr):
        if engine.kind != PYSPARK:
            with connected(engine):
                distributor(engine.processes, downloader, numbers, 1000, 1)
        else:
            distributor(engine.processes, downloader, numbers, 1000, 1)
