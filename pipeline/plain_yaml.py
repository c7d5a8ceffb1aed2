"""Read YAML that a person writes: mappings, lists, texts, numbers, true and false, within bounds.

Belongs here: what a text may cost, and that it can be read in one way only. Not here: what keys mean.
"""

import re
import unicodedata
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from pipeline.errors import UserError, user_error

LARGEST = 2**20
"""Bytes of a text."""
DEEPEST = 32
"""Levels of lists and mappings within each other: beyond some thousands libyaml's composer overflows the stack."""
MOST_VALUES = 100_000
"""Values of a text, those behind aliases counted at every alias."""
LONGEST = 4096
"""Characters of one value."""

_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, many times as fast, where it is there
_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_MOST_DIGITS = 18  # as many as int64 holds
_SCIENTIFIC = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")  # of YAML 1.2; 1.1 takes 1e-4 for text


def read_yaml(name: str, path: Path) -> Any:
    """The value in the YAML file at `path`, lists as tuples; `name` says in messages what the file is.

    Keys are texts, each of which a mapping has once. Whole numbers are decimal. Aliases and merge keys are followed.
    Raises `UserError`, naming file and line, for all else, and for a text that is larger or deeper than the bounds.
    """
    text = _text(name, path)
    try:
        _check_bounds(text)
        return yaml.load(text, _Plain)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())[:200]
        raise UserError(f"{name} {path} is not readable YAML: {where}{problem}.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{name} {path} is not readable YAML: {' '.join(str(error).split())[:200]}.") from None


def _text(name: str, path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{name} {path} is larger than {LARGEST // 2**20} MiB.")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} {path} is not readable YAML: byte {error.start} is no UTF-8.") from None
    except OSError as error:
        raise user_error(f"{name} {path} cannot be opened: {error.strerror}.", error) from None


def _check_bounds(text: str) -> None:
    """Raise `ConstructorError` for a text that is too deep, too large, or refers to itself; nothing is built yet."""
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
        if len(opened) > DEEPEST:
            raise _error(event, f"more than {DEEPEST} lists and mappings within each other")
        if values > MOST_VALUES:
            raise _error(event, f"more than {MOST_VALUES:,} values, aliases included")


def _check_scalar(event: yaml.ScalarEvent) -> None:
    if len(event.value) > LONGEST:
        raise _error(event, f"a value of more than {LONGEST:,} characters")
    if any(unicodedata.category(sign) in {"Cc", "Cs"} for sign in event.value):
        raise _error(event, "a control character in a value")


def _error(at: Any, problem: str) -> ConstructorError:
    """`at` is an event or a node."""
    return ConstructorError(None, None, problem, at.start_mark)


class _Plain(_SAFE):  # type: ignore[misc]
    """The safe loader with fewer kinds of values, each of which is written in one way."""

    def construct_document(self, node: Any) -> Any:
        _check_keys(node, set())
        return super().construct_document(node)


def _check_keys(node: Any, checked: set[int]) -> None:
    """Raise `ConstructorError` for a key that is no text or is there twice, at `node` or below, merged or not."""
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
            raise _error(key, "a key that is no text; write it in quotation marks")
        if key.value in seen:
            raise _error(key, f"the key {key.value!r} is written twice")
        seen.add(key.value)
        _check_keys(value, checked)


def _mapping(loader: Any, node: Any) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise _error(node, "no mapping, though its tag says so")
    loader.flatten_mapping(node)
    return {key.value: loader.construct_object(value, deep=True) for key, value in node.value}


def _list(loader: Any, node: Any) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise _error(node, "no list, though its tag says so")
    return tuple(loader.construct_object(value, deep=True) for value in node.value)


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
        raise _error(node, "neither true nor false, though its tag says so")
    return bool(_SAFE.bool_values[text])


def _words(loader: Any, node: Any) -> str:
    return str(loader.construct_scalar(node))


_Plain.add_implicit_resolver(f"{_TAG}float", _SCIENTIFIC, list("-+.0123456789"))
_Plain.yaml_constructors = {
    f"{_TAG}map": _mapping,
    f"{_TAG}seq": _list,
    f"{_TAG}int": _whole,
    f"{_TAG}float": _number,
    f"{_TAG}bool": _flag,
    f"{_TAG}null": _SAFE.construct_yaml_null,
    **dict.fromkeys((f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value"), _words),
    None: _SAFE.construct_undefined,
}
