"""The pattern matcher finds every pattern in a text, and nothing else."""

import json
import random
import time
from urllib.parse import quote

import pytest

from pipeline.privacy.pattern_matcher import Pattern, PatternMatcher, comparable


def found(pattern: Pattern, text: str, in_cells: bool = False) -> bool:
    kinds = PatternMatcher([pattern]).kinds_in(text, in_cells)
    assert kinds <= {pattern.kind}
    return bool(kinds)


def word(text: str, **more: bool) -> Pattern:
    return Pattern(comparable(text), "kind", **more)


@pytest.mark.parametrize("before", range(9))
def test_a_pattern_is_found_at_every_alignment_and_at_both_ends(before: int) -> None:
    text = "#" * before + "Needle7"
    assert found(word("NEEDLE7"), text)
    assert found(word("NEEDLE7"), text + "#" * before)
    assert not found(word("NEEDLE7"), text[:-1])


def test_many_patterns_are_found_as_a_plain_search_finds_them() -> None:
    draw = random.Random(0)
    strings = ["".join(draw.choices("abcü", k=draw.randint(6, 9))) for _ in range(300)]
    patterns = PatternMatcher(Pattern(string, string) for string in strings)
    for _ in range(20):
        text = "".join(draw.choices("abcü", k=5000))
        expected = {string for string in strings if string in text}
        assert patterns.kinds_in(text, in_cells=False) == expected
        assert 0 < len(expected) < len(strings)


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("778899", True),
        ("MRN-778899", True),
        ("id_778899_b", True),
        ("778899.", True),
        ("778899.csv", True),
        ("a778899", False),
        ("7788990", False),
        ("0.778899", False),
        ("778899.5", False),
        ("ä778899", False),
    ],
)
def test_a_bounded_number_is_no_part_of_another_word_or_number(text: str, there: bool) -> None:
    assert found(word("778899", bounded=True), text) is there


def test_a_pattern_for_cells_is_found_in_cells_alone() -> None:
    assert found(word("mueller", only_cells=True), "Mueller", in_cells=True)
    assert not found(word("mueller", only_cells=True), "Mueller", in_cells=False)
    both = PatternMatcher([word("mueller", only_cells=True), word("mueller")])
    assert both.kinds_in("Mueller", in_cells=False) == {"kind"}


NAME = 'Müßig^Jörg "Jo"'


@pytest.mark.parametrize(
    "text",
    [
        NAME,
        NAME.upper(),
        json.dumps({"name": NAME}),
        json.dumps(json.dumps({"name": NAME})),
        json.dumps(NAME, ensure_ascii=False),
        ascii(NAME),
        quote(NAME),
        quote(NAME).lower(),
        "file:///a/" + quote(f"{NAME}/1"),
    ],
)
def test_escapes_hide_nothing(text: str) -> None:
    assert found(word(NAME), f"before {text} behind")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("O'BRIEN", "<td>O&#39;Brien</td>"),
        ("O'BRIEN", "<td>O&#x27;BRIEN</td>"),
        ("SMITH&SONS", "&lt;smith&amp;sons&gt;"),
        ("ŽOFIE MÜLLER", "&#381;ofie M&uuml;ller"),
        ("ŽOFIE MÜLLER", "Z\u030cofie Mu\u0308ller"),
        ("Z\u030cOFIE MU\u0308LLER", "Žofie Müller"),
        ("ŽOFIE MÜLLER", quote("Z\u030cofie Mu\u0308ller")),
        ("ŽOFIE MÜLLER", json.dumps("Z\u030cofie Mu\u0308ller")),
    ],
)
def test_entities_and_parted_accents_hide_nothing(name: str, text: str) -> None:
    assert found(word(name, bounded=True), text)


@pytest.mark.parametrize("text", [r"US LIVER\NOWAKOWSKI", json.dumps("US LIVER\nNOWAKOWSKI"), "%NOWAKOWSKI"])
def test_what_only_looks_like_an_escape_hides_nothing(text: str) -> None:
    assert found(word("nowakowski", bounded=True), text)


def test_text_that_is_no_unicode_can_be_searched() -> None:
    assert found(word("b\udce4hmann"), "x b\udce4hmann")


def test_nothing_to_find_is_found_nowhere() -> None:
    nothing = PatternMatcher([Pattern("short", "kind"), Pattern("", "kind")])
    assert len(nothing) == 0
    assert nothing.kinds_in("short", in_cells=True) == set()
    assert found(word("pattern"), "") is False


def test_ten_thousand_patterns_cost_no_more_than_seconds_per_hundred_megabytes() -> None:
    draw = random.Random(1)
    patterns = PatternMatcher(Pattern(f"1.2.840.{draw.getrandbits(90)}", "uid", bounded=True) for _ in range(10_000))
    text = "\n".join(f"1.2.840.{draw.getrandbits(90)} f_{draw.getrandbits(64):016x}" for _ in range(80_000))
    start = time.perf_counter()
    assert patterns.kinds_in(text, in_cells=True) == set()
    assert (time.perf_counter() - start) / len(text) < 20 / 100e6
