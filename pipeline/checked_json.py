"""Validated reading of JSON files that people copy and edit, such as those of a model's folder."""

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import UserError
from pipeline.files import read_bounded
from pipeline.settings import first_problem

MAX_BYTES = 2**26
"""Maximum size of a file, 64 MiB."""
MAX_MESSAGE = 400
"""Maximum length of a quoted problem in characters: the file names its fields."""

Checked = TypeVar("Checked")


def read_checked(kind: type[Checked], path: Path) -> Checked:
    """The JSON file at `path` as `kind`, without type conversion; raises `UserError` that names the invalid field."""
    content = read_bounded(str(path), path, MAX_BYTES)
    try:
        checked: Checked = _adapter(kind).validate_json(content, strict=True)  # type: ignore[arg-type]  # mypy: a class is no Hashable
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)[:MAX_MESSAGE]}.") from None
    return checked


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
