"""The format of a data set: what writes each of its files also reads it.

    entities.toml                          `entities`  what the captions were searched for
    plan.parquet, plan.json                `plan`      captions that name an entity, cut into shards
    000000.tar .parquet .tar.sha256 ...    `shards`    pairs, and where each image begins
    index.parquet, failures.parquet        `index`     all shards' pairs, and what has no image
    partners.npy, partner_entities.npy     `partners`  pairs that show the same
    recipe.json, dataset.json              `folder`    what was asked for, and what came of it

`webdataset` reads other people's tars. Needs pyarrow and fsspec; importing this package without
them says so.
"""

from importlib.util import find_spec

from ovseg.errors import MissingDependencyError

for _package in ("pyarrow", "fsspec"):
    if find_spec(_package) is None:
        raise MissingDependencyError(_package, "train", "reading a data set")
