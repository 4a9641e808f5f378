"""What sections of recipes are made of: their base, and types with ranges."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Upper ends are far beyond any real model: they stop a recipe from a foreign checkpoint that would
# fill the memory before its shapes are compared with its tensors.
Width = Annotated[int, Field(ge=1, le=16_384)]
Depth = Annotated[int, Field(ge=1, le=256)]
Heads = Annotated[int, Field(ge=1, le=256)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def require_division(whole: int, part: int, whole_name: str, part_name: str) -> None:
    if whole % part:
        raise ValueError(f"{whole_name} {whole} is no multiple of {part_name} {part}")


class Section(BaseModel):
    """Base of every section: unknown keys and silent conversions are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)
