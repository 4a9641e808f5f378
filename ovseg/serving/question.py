"""What a request asks for: an image, words, and how the answer is to look."""

from typing import Annotated, Any, Literal, get_args

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.datastructures import ImmutableMultiDict, UploadFile
from starlette.exceptions import HTTPException

from ovseg.data.class_list import ClassList
from ovseg.serving.limits import Limits

Kind = Literal["json", "rle", "png", "overlay"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LONGEST_PHRASE = 200  # characters
_RAW = ("image/", "application/octet-stream")
_FORM = "multipart/form-data"
_FIELD_BYTES = 100_000


def _only_true_or_false(value: Any) -> Any:
    """What the description says, where pydantic takes `0`, `y` and `off` as well."""
    if isinstance(value, bool) or str(value).lower() in ("true", "false"):
        return value
    raise ValueError("say true or false")


def _if_given(schema: dict[str, Any]) -> None:
    """An address or a form has no null: what has no value is left out."""
    schema |= next(kind for kind in schema.pop("anyOf") if kind["type"] != "null")
    schema.pop("default", None)


Truth = Annotated[bool, BeforeValidator(_only_true_or_false)]
Phrases = Annotated[
    str, Field(min_length=1, max_length=_FIELD_BYTES, json_schema_extra={"format": "phrases"})
]
Share = Annotated[float, Field(ge=0, le=1)]


class Options(BaseModel):
    """Everything of a question but the image, from the address or from fields of a form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: Annotated[
        Phrases | None,
        Field(
            description="What to look for, separated by commas; synonyms after `;`: `sofa;couch`. "
            "In the address or in the form.",
            examples=["cat,dog"],
            json_schema_extra=_if_given,
        ),
    ] = None
    threshold: Annotated[
        Share | None,
        Field(
            description="Score of the background; the model's own by default.",
            json_schema_extra=_if_given,
        ),
    ] = None
    background: Annotated[
        Truth, Field(description="Whether pixels may belong to none of the classes.")
    ] = True
    instances: Annotated[
        Truth,
        Field(description="One region for each part of a class that hangs together (json, rle)."),
    ] = False
    format: Annotated[
        Kind | None,
        Field(
            description="json: shares and scores; rle: a COCO dataset with run lengths; png: the "
            "label map; overlay: a picture. By default as `Accept` asks, or json.",
            json_schema_extra=_if_given,
        ),
    ] = None

    def class_list(self, limits: Limits) -> ClassList:
        """The classes; a name of a file is a word like any other here.

        Raises:
            UsageError: there are none, or one twice.
            HTTPException: there are too many, or too long ones.
        """
        classes = ClassList.of((self.classes or "").split(","))
        if len(classes.phrases) > limits.phrases:
            raise HTTPException(422, f"more than {limits.phrases} phrases: ask for fewer at once")
        if any(len(phrase) > LONGEST_PHRASE for phrase in classes.phrases):
            raise HTTPException(422, f"a phrase has more than {LONGEST_PHRASE} characters")
        return classes


async def read_question(
    request: Request, options: Options, limits: Limits
) -> tuple[bytes, Options]:
    """The image's bytes, and the options, of which a form's win over the address's.

    Raises:
        HTTPException: the body is too large, of another type, or has no image, or an option is
            given twice.
    """
    _check_once(request.query_params)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM and not kind.startswith(_RAW):
        raise HTTPException(415, f"send an image, or {_FORM} with the fields image and classes")
    body = await read_body(request, limits.body)
    if kind != _FORM:
        return body, options
    image, fields = await _read_form(request, body)
    try:
        return image, Options.model_validate({**options.model_dump(exclude_unset=True), **fields})
    except ValidationError as error:
        raise HTTPException(422, told(error.errors())) from error


async def read_body(request: Request, most: int) -> bytes:
    """All of the body, unless it is larger than `most` bytes (413), announced or not."""
    announced = request.headers.get("content-length", "")
    too_large = HTTPException(413, f"the request has more than {most:,} bytes")
    if announced.isdecimal() and int(announced) > most:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def _read_form(request: Request, body: bytes) -> tuple[bytes, dict[str, str]]:
    """The image and the other fields of a form, which is here already."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    again = Request(request.scope, receive)
    image, fields = None, {}
    async with again.form(max_files=1, max_fields=16, max_part_size=_FIELD_BYTES) as form:
        _check_once(form)
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) and name == "image":
                image = await value.read()
            elif isinstance(value, str):
                fields[name] = value
            else:
                raise HTTPException(422, f"{name}: only the field image takes a file")
    if image is None:
        raise HTTPException(422, "the form has no file in the field image")
    return image, fields


def _check_once(given: ImmutableMultiDict[str, Any]) -> None:
    """Refuse what is given more than once: which of them is meant?"""
    names = [name for name, _ in given.multi_items()]
    for name in given:
        if names.count(name) > 1:
            raise HTTPException(422, f"{name}: given more than once")


def form_fields() -> dict[str, Any]:
    """The options as a form has them, in JSON schema; those without a value are left out."""
    fields: dict[str, Any] = Options.model_json_schema()["properties"]
    for field in fields.values():
        field.pop("default", None)
    return fields


def told(errors: Any) -> str:
    """What a check of options found, in one line."""
    return "; ".join(f"{'.'.join(map(str, each['loc'][-1:]))}: {each['msg']}" for each in errors)
