"""Reading of hand-written YAML within bounds: mappings, lists, strings, numbers and booleans, without ambiguity."""

import re
import unicodedata
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from pipeline.errors import UserError
from pipeline.files import read_bounded

MAX_BYTES = 2**20
"""Maximum size of a file in bytes."""
MAX_DEPTH = 32
"""Maximum nesting of lists and mappings; some thousands overflow the stack of libyaml."""
MAX_VALUES = 100_000
"""Maximum number of values, counting those behind an alias at every alias."""
MAX_CHARACTERS = 4096
"""Maximum number of characters of a value."""

_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is many times as fast, if available
_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_MOST_DIGITS = 18  # fits int64
_SCIENTIFIC = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"
)  # of YAML 1.2; 1.1 reads 1e-4 as a string


def read_yaml(name: str, path: Path) -> Any:
    """The value in the YAML file at `path`, lists as tuples; error messages call the file `name`.

    Keys are unique strings, whole numbers decimal; aliases and merge keys are followed. Raises `UserError`, naming file
    and line, for everything else and for a file beyond the bounds.
    """
    content = read_bounded(f"{name} {path}", path, MAX_BYTES)
    try:
        text = content.decode("utf-8-sig")
        _check_bounds(text)
        return yaml.load(text, _Loader)
    except UnicodeDecodeError as error:
        raise UserError(f"{name} {path} is not readable YAML: byte {error.start} is not UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())[:200]
        raise UserError(f"{name} {path} is not readable YAML: {line}{problem}.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{name} {path} is not readable YAML: {' '.join(str(error).split())[:200]}.") from None


def _check_bounds(text: str) -> None:
    """Raise `ConstructorError`, before building any value, for a text that is too deep, too large or recursive."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    values = 0
    for event in yaml.parse(text, _SAFE):
        match event:
            case yaml.AliasEvent():
                if any(anchor == event.anchor for anchor, _ in opened):
                    raise _error(event, "a value that refers to itself")
                values += sizes.get(event.anchor or "", 1)
            case yaml.ScalarEvent():
                values += 1
                sizes[event.anchor or ""] = 1
                _check_scalar(event)
            case yaml.CollectionStartEvent():
                values += 1
                opened.append((event.anchor, values))
            case yaml.CollectionEndEvent():
                anchor, before = opened.pop()
                sizes[anchor or ""] = values - before + 1
        if len(opened) > MAX_DEPTH:
            raise _error(event, f"more than {MAX_DEPTH} lists and mappings within each other")
        if values > MAX_VALUES:
            raise _error(event, f"more than {MAX_VALUES:,} values, aliases included")


def _check_scalar(event: yaml.ScalarEvent) -> None:
    if len(event.value) > MAX_CHARACTERS:
        raise _error(event, f"a value of more than {MAX_CHARACTERS:,} characters")
    if any(unicodedata.category(sign) in {"Cc", "Cs"} for sign in event.value):
        raise _error(event, "a control character in a value")


def _error(at: Any, problem: str) -> ConstructorError:
    """`at` is an event or a node."""
    return ConstructorError(None, None, problem, at.start_mark)


class _Loader(_SAFE):  # type: ignore[misc]
    """The safe loader with fewer types of values, each with one notation."""

    def construct_document(self, node: Any) -> Any:
        _check_keys(node, set())
        return super().construct_document(node)


def _check_keys(node: Any, checked: set[int]) -> None:
    """Raise `ConstructorError` for a key at `node` or below, merged or not, that is not a string or not unique."""
    if id(node) in checked or isinstance(node, yaml.ScalarNode):
        return
    checked.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(value, checked)
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.tag not in {f"{_TAG}str", f"{_TAG}merge"} or not isinstance(key, yaml.ScalarNode):
            raise _error(key, "a key that is not a string; quote it")
        if key.value in seen:
            raise _error(key, f"the key {key.value!r} occurs twice")
        seen.add(key.value)
        _check_keys(value, checked)


def _mapping(loader: Any, node: Any) -> dict[str, Any]:
    return dict(loader.construct_mapping(node, deep=True))


def _list(loader: Any, node: Any) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise _error(node, "not a list, despite its tag")
    return tuple(loader.construct_sequence(node, deep=True))


def _whole(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    if not _WHOLE.fullmatch(text) or len(text.replace("_", "")) > _MOST_DIGITS:
        raise _error(node, f"a whole number that is not decimal, or of more than {_MOST_DIGITS} digits")
    return int(text)


def _number(loader: Any, node: Any) -> float:
    text = loader.construct_scalar(node)
    try:
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _error(node, "a number that is not decimal") from None


def _flag(loader: Any, node: Any) -> bool:
    text = loader.construct_scalar(node).lower()
    if text not in _SAFE.bool_values:
        raise _error(node, "neither true nor false, despite its tag")
    return bool(_SAFE.bool_values[text])


def _words(loader: Any, node: Any) -> str:
    return str(loader.construct_scalar(node))


_Loader.add_implicit_resolver(f"{_TAG}float", _SCIENTIFIC, list("-+.0123456789"))
_Loader.yaml_constructors = {
    f"{_TAG}map": _mapping,
    f"{_TAG}seq": _list,
    f"{_TAG}int": _whole,
    f"{_TAG}float": _number,
    f"{_TAG}bool": _flag,
    f"{_TAG}null": _SAFE.construct_yaml_null,
    **dict.fromkeys((f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value"), _words),
    None: _SAFE.construct_undefined,
}
