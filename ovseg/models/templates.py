"""Prompt templates, one `{}` each."""

from functools import cache

from ovseg.errors import MissingDependencyError


@cache
def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates OpenAI chose for ImageNet, which every dense CLIP method averages over.

    open_clip carries them.

    Raises:
        MissingDependencyError: open_clip is not installed.
    """
    try:
        from open_clip import OPENAI_IMAGENET_TEMPLATES
    except ImportError as error:
        raise MissingDependencyError("open_clip", "torch", "the ImageNet templates") from error
    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
