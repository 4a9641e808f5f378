"""img2dataset's downloader with our guard, our resizing and our writer.

What is img2dataset's: the threads, the requests, X-Robots-Tag, the statistics of a request. Its
requests go through `urllib.request.urlopen`, whose opener a program may replace: that is where the
guard stands, in the process that downloads.
"""

import io
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from img2dataset.downloader import Downloader

from ovseg.data.build.encoding import BadImageError, prepare_image
from ovseg.data.build.jobs import ShardJob
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.dataset.plan import read_shard_plan
from ovseg.data.dataset.shards import (
    PlanRow,
    PreparedImage,
    plan_rows,
    read_images,
    rows_by_image,
    write_shard,
)
from ovseg.data.guard import FetchOptions, ascii_address, build_opener, reason_of

POSITIONS = 100_000  # img2dataset's keys are the shard's number times this, plus the position


class Resizer:
    """Our check and encoding behind img2dataset's interface."""

    def __init__(self, options: ImageOptions) -> None:
        self._options = options

    def __call__(self, img_stream: io.BytesIO, boxes: object = None) -> tuple[Any, ...]:
        """Image, width, height, original width and height (which nobody reads), error."""
        del boxes
        try:
            image = prepare_image(img_stream.getvalue(), self._options)
        except BadImageError as error:
            return None, None, None, None, None, str(error)
        return image.data, image.width, image.height, None, None, None


class ShardWriter:
    """Takes the samples of a shard in the order they arrive and writes it in the plan's order.

    `kept` are images that are here already, by the position of a row; the samples that arrive are
    numbered among the other images. `addresses` are those to be fetched, each once.
    """

    def __init__(
        self, job: ShardJob, rows: Sequence[PlanRow], kept: dict[int, PreparedImage]
    ) -> None:
        self._job = job
        self._rows = rows
        self._images: list[PreparedImage | str] = []
        self._wanted: list[int] = []
        self.addresses: list[str] = []
        for number, places in enumerate(rows_by_image(rows)):
            here = next((kept[place] for place in places if place in kept), None)
            self._images.append(here or "lost by the downloader")
            if here is None:
                self._wanted.append(number)
                self.addresses.append(ascii_address(rows[places[0]].locator))

    def write(self, img_str: bytes | None, key: str, caption: object, meta: dict[str, Any]) -> None:
        """Keep one image, or the reason why there is none."""
        del caption
        position = self._wanted[int(key) % POSITIONS]
        if img_str is not None:
            self._images[position] = PreparedImage(img_str, meta["width"], meta["height"])
        elif meta["status"] == "failed_to_resize":
            self._images[position] = meta["error_message"]
        else:
            self._images[position] = reason_of(str(meta["error_message"]))

    def close(self) -> None:
        """Write the shard."""
        job = self._job
        write_shard(job.store, job.number, self._rows, self._images, job.names)


@contextmanager
def guarded(options: FetchOptions) -> Iterator[None]:
    """Send every request of this process through the guard, until the shard is done."""
    before = getattr(urllib.request, "_opener", None)  # has no public reader
    urllib.request.install_opener(build_opener(options))
    try:
        yield
    finally:
        urllib.request.install_opener(before)


class GuardedDownloader(Downloader):
    """Downloads shards given as (number, anything), in whatever process it is called."""

    def __init__(self, jobs: Sequence[ShardJob], options: FetchOptions) -> None:
        super().__init__(
            sample_writer_class=None,
            resizer=Resizer(jobs[0].options),
            thread_count=options.threads,
            save_caption=False,
            extract_exif=False,
            output_folder="",
            column_list=["url"],
            timeout=options.timeout,
            number_sample_per_shard=POSITIONS,
            oom_shard_count=6,
            compute_hash=None,
            verify_hash_type=None,
            encode_format="jpg",
            retries=0,
            user_agent_token="ovseg",
            disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
        )
        self._jobs = {job.number: job for job in jobs}
        self._fetch_options = options

    def __call__(self, row: tuple[int, str]) -> tuple[bool, tuple[int, str]]:
        """Build one shard; whether it went well, and `row` again, as distributors expect."""
        job = self._jobs[row[0]]
        rows = plan_rows(read_shard_plan(job.store, job.number))
        writer = ShardWriter(job, rows, read_images(job.store, job.number))
        # It is called with number, folder, format and schema: ours are in the job.
        self.sample_writer_class = lambda *_: writer
        with guarded(self._fetch_options), tempfile.TemporaryDirectory() as folder:
            self.output_folder = folder
            addresses = Path(folder) / "addresses.arrow"
            table = pa.table({"url": pa.array(writer.addresses, pa.string())})
            with pa.ipc.new_file(str(addresses), table.schema) as stream:
                stream.write_table(table)
            done, _ = super().__call__((job.number, str(addresses)))
        return done, row
