"""From captions to a training set: entities chosen and matched, images fetched, shards written.

The steps: `sources` -> `choosing` -> `matching` -> `fetch` or `jobs`; `pipeline` runs them, and
`ovseg.data.dataset` is what they write. Needs the extra `data`; importing this package without it
says so.
"""

from importlib.util import find_spec

from ovseg.errors import MissingDependencyError

for _package in ("polars", "pyarrow", "fsspec", "ahocorasick_rs", "inflect"):
    if find_spec(_package) is None:
        raise MissingDependencyError(_package, "data", "building a dataset")
