"""From captions to a training set: entities chosen and matched, images fetched, shards written.

The steps, one module each: `sources` -> `matching` -> `plan` -> `shards` -> `partners`; `build`
runs them. Needs the extra `data`; importing this package without it says so.
"""

from importlib.util import find_spec

from ovseg.errors import MissingDependencyError

for _package in ("polars", "pyarrow", "fsspec", "ahocorasick_rs", "inflect"):
    if find_spec(_package) is None:
        raise MissingDependencyError(_package, "data", "building a dataset")
