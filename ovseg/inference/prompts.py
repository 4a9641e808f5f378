"""Prompt templates that a user gives."""

from collections.abc import Sequence

from ovseg.errors import UsageError


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Prompt templates as given by a user.

    Raises:
        UsageError: one has no `{}`, or more than that to fill in.
    """
    for template in templates:
        if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
            raise UsageError(
                f"prompt {template!r} needs exactly one {{}} for the class: 'a photo of a {{}}.'"
            )
    return tuple(templates)
