"""The schema of a data set's recipe: what `ovseg build-dataset` builds, from what, and where.

Each key is a flag that nobody types daily; a recipe writes down only what differs.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ovseg.config.section import Count, Positive, Section

KIND = "source"  # the section that tells a data set's recipe from a training run's

_Column = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]
_Megabytes = Annotated[int, Field(ge=1, le=1_000_000_000)]


class SourceConfig(Section):
    """`[source]`: captions, and where their images are."""

    name: str = ""
    """cc12m, cc3m, redcaps, yfcc, coco, or the path of a table (TSV, CSV, JSONL, parquet), of a
    COCO captions file, of a folder of images with .txt files, or of a folder of webdataset tars."""
    captions: str = ""
    """The captions file of a named source, if it is here."""
    images: str = ""
    """Folder with the images, for those who have them; "" fetches them."""
    format: Literal["", "tsv", "csv", "jsonl", "parquet", "coco", "redcaps"] = ""
    """Of the captions, if the file's name hides it."""
    url_column: _Column = ""
    """Name or 0-based number of the column of addresses or files; "" is the source's own."""
    caption_columns: tuple[_Column, ...] = ()
    """Names or numbers of the captions' columns, joined with a space."""
    header: bool | None = None
    """Whether the table begins with column names."""

    @model_validator(mode="after")
    def _is_somewhere(self) -> "SourceConfig":
        if not (self.name or self.captions):
            raise ValueError("give name, such as cc12m, or the path of captions or a folder")
        return self


class EntitiesConfig(Section):
    """`[entities]`: what captions are searched for."""

    source: str = ""
    """paper100, or a file of entities; "" chooses them from the captions."""
    top: Count = 100
    """How many to choose."""
    sample: Annotated[int, Field(ge=1)] = 50_000
    """Captions that are tagged to choose them."""
    apart: bool = False
    """Every noun is an entity of its own; else synonyms are one, and so are all persons."""
    visual_nouns: str = ""
    """File of corrections of the visible nouns: +noun, -noun or +noun=other."""
    match: Literal["lexical", "pos"] = "lexical"
    """With pos, a tagger confirms ambiguous forms."""
    pipeline: str = ""
    """spaCy's; "" takes the small English one."""
    all_captions: bool = False
    """Keep captions that name none of them, too: contrast learns from these as well."""


class ImageConfig(Section):
    """`[image]`: how images are stored, and which are refused."""

    short_side: Annotated[int, Field(ge=0, le=65_535)] = 256
    """Pixels; smaller images keep their size. 0 keeps JPEG files as they are."""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Of the JPEG files."""
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000
    """Larger images are refused before they are decoded."""
    max_bytes: _Megabytes = 30_000_000
    """Larger files are refused."""
    min_side: Annotated[int, Field(ge=1)] = 16
    """Pixels; smaller images are spacers and trackers."""
    max_aspect: Positive = 8.0
    """Longer side to shorter."""


class BuildConfig(Section):
    """`[build]`: how pairs are dealt to shards, and partners to pairs."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the sample and of the partners."""
    pairs_per_shard: Annotated[int, Field(ge=1, le=99_999)] = 5000
    """Pairs in one tar file."""
    partners: Annotated[int, Field(ge=1, le=1_000)] = 10
    """Drawn for each pair."""


class FetchConfig(Section):
    """`[fetch]`: bounds of one request."""

    allow_private_hosts: bool = False
    """Fetch from this network, too."""
    timeout: Positive = 10.0
    """Seconds without a byte."""
    deadline: Positive = 60.0
    """Seconds for a whole response."""
    max_bytes: _Megabytes = 30_000_000
    """Larger responses are refused."""
    threads: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Requests at once in each process."""


class EngineConfig(Section):
    """`[engine]`: where the work is done; no byte of the data set depends on it."""

    kind: Literal["local", "ray", "pyspark"] = "local"
    """pyspark fetches only."""
    workers: Annotated[int, Field(ge=0, le=1_024)] = 0
    """Processes; 0 is one per core."""
    ray_address: str = ""
    """Ray cluster; "" takes RAY_ADDRESS, or else starts one here."""


class DatasetRecipe(Section):
    """One data set, whole: what a recipe file and its overrides amount to."""

    source: SourceConfig
    entities: EntitiesConfig = EntitiesConfig()
    image: ImageConfig = ImageConfig()
    build: BuildConfig = BuildConfig()
    fetch: FetchConfig = FetchConfig()
    engine: EngineConfig = EngineConfig()
