"""Prompt templates, one `{}` each."""

from functools import cache

from ovseg.errors import MissingDependencyError


def is_template(text: str) -> bool:
    """Whether a text has exactly one `{}`, and nothing else that is filled in."""
    return text.count("{}") == 1 and not set("{}") & set(text.replace("{}", ""))


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
