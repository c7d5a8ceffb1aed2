"""Validated reading of JSON files that people copy and edit, such as those of a model's folder."""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import UserError
from pipeline.files import read_bounded
from pipeline.settings import first_problem

MAX_BYTES = 2**26
"""Maximum size of a file, 64 MiB."""
MAX_MESSAGE = 400
"""Maximum length of a quoted problem in characters: the file names its fields."""

Checked = TypeVar("Checked")


def read_checked(kind: TypeAdapter[Checked], path: Path) -> Checked:
    """The JSON file at `path` as `kind`, without type conversion; raises `UserError` that names the invalid field."""
    content = read_bounded(str(path), path, MAX_BYTES)
    try:
        return kind.validate_json(content, strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)[:MAX_MESSAGE]}.") from None
