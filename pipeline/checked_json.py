"""Read JSON that lies in folders which people copy and edit, such as a model's, against the type it must have.

Belongs here: bounds, and one sentence for whatever does not fit. Not here: the types.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import UserError, user_error

LARGEST = 2**26
"""Bytes of a text: 64 MiB."""

Checked = TypeVar("Checked")


def read_checked(kind: TypeAdapter[Checked], path: Path) -> Checked:
    """The JSON at `path` as `kind`, types as they are written; raises `UserError` with the field that does not fit."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise user_error(f"{path} cannot be opened: {error.strerror}.", error) from None
    if len(content) > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST // 2**20} MiB.")
    try:
        return kind.validate_json(content, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"])[:200]
        raise UserError(f"{path}: {field}{': ' if field else ''}{problem['msg'][:200]}.") from None
