"""The installed version, read from the package's metadata."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ovseg")
except PackageNotFoundError:  # a source tree on the path without an install
    __version__ = "0+unknown"
