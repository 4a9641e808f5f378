"""How much a service takes from strangers."""

from dataclasses import dataclass

from ovseg.errors import UsageError

MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds of a service.

    Attributes:
        requests: at once, whether they are read, wait or are computed; more are sent away.
        together: images with the same classes that are worked on together.
        body: bytes of a request.
        pixels: of an image.
        phrases: that are asked for at once, synonyms too.
        seconds: from the first byte of a request to its answer.
    """

    requests: int = 64
    together: int = 8
    body: int = 20 * MB
    pixels: int = 25_000_000
    phrases: int = 300
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UsageError(f"{name} {value:g}: a service needs more than none")
