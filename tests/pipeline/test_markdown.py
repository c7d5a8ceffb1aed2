"""Any text is shown as it is by a Markdown renderer of others: no link, no picture, no HTML, no other row or cell."""

import random

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.markdown import cell, inline, link

RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = [
    "![x](/graphql?query=mutation{shutdown})",
    "[x](javascript:alert(1))",
    "[x][y] [y]: http://evil.example",
    "[1]: http://evil.example",
    "![1](/graphql)",
    "[−1](/graphql)",
    "<img src=/graphql>",
    "<!-- x",
    "<https://evil.example>",
    "&lt;img src=x&gt; &#60;b&#62;",
    "a | b | c",
    "\\| x \\",
    "`code` ``two`` `",
    "www.evil.example `|` https://evil.example/`",
    "nobody@evil.example",
    "# heading",
    "- item",
    "+ item",
    "* item",
    "1. item",
    "12) item",
    "> quote",
    "---",
    "===",
    "    code",
    "~~~",
    "```",
    "**bold** __bold__ _a_ *a* ~~gone~~",
    "one\n\n# two\r\n- three\x0b\x85\u2028x",
    "a\\\nb",
    "$x$ [^1] :smile:",
]
SHOWN = ["US KIDNEY (LEFT) / 3-5 MHz", "sop_instance", "+0.300 [−0.006, +0.606]", "p <0.001", "f_0123:0", "Ärzte 超"]
UNSEEN = {"\u202e": "mark of direction", "\u200b": "no width", "\x00": "control", "\u2066": "isolate", "\ufeff": "BOM"}
ALPHABET = "ab1 .:/\\|`*_[](){}<>!#&~-+=^$@'\"\n\t"


def random_texts() -> list[str]:
    draws = random.Random(0)
    return ["".join(draws.choices(ALPHABET, k=draws.randint(1, 24))) for _ in range(3000)]


def content(tokens: list[Token]) -> str:
    """The text of one inline token; fails if there is anything but text and code."""
    (one,) = [token for token in tokens if token.type == "inline"]
    assert one.children is not None
    assert {child.type for child in one.children} <= {"text", "code_inline", "text_special"}, one.children
    return "".join(child.content for child in one.children)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE + SHOWN)
def test_a_line_shows_the_text_and_nothing_else(text: str) -> None:
    tokens = RENDERER.parse(f"- {inline(text)}")
    assert [token.type for token in tokens if token.type != "inline"] == [
        *("bullet_list_open", "list_item_open", "paragraph_open", "paragraph_close"),
        *("list_item_close", "bullet_list_close"),
    ]
    assert words(content(tokens)) == words(text)


@pytest.mark.parametrize("text", HOSTILE + SHOWN)
def test_a_cell_shows_the_text_and_nothing_else(text: str) -> None:
    tokens = RENDERER.parse(f"| {cell('head')} | b |\n| --- | --- |\n| {cell(text)} | end |\n")
    inlines = [token for token in tokens if token.type == "inline"]
    assert len(inlines) == 4
    assert inlines[3].content == "end"
    assert words(content([inlines[2]])) == words(text)


def test_three_thousand_random_texts_are_shown_literally() -> None:
    for text in random_texts():
        if not words(text):
            continue
        table = RENDERER.parse(f"| a | b |\n| --- | --- |\n| {cell(text)} | end |\n")
        inlines = [token for token in table if token.type == "inline"]
        assert len(inlines) == 4, text
        assert words(content([inlines[2]])) == words(text), text
        assert words(content(RENDERER.parse(inline(text)))) == words(text), text


@pytest.mark.parametrize("text", SHOWN)
def test_harmless_text_is_unchanged(text: str) -> None:
    assert inline(text) == cell(text) == text


@pytest.mark.parametrize("character", UNSEEN, ids=UNSEEN.values())
def test_invisible_characters_are_made_visible(character: str) -> None:
    assert cell(f"a{character}b") == inline(f"a{character}b") == "a\ufffdb"


@pytest.mark.parametrize("text", ["http://evil.example", "WWW.evil.example", "x@evil.example", "a|b ://"])
def test_text_that_renderers_would_link_becomes_code(text: str) -> None:
    assert [child.type for child in RENDERER.parseInline(inline(text))[0].children or []] == ["code_inline"]


def test_a_link_keeps_its_whole_text_and_address() -> None:
    (paragraph,) = RENDERER.parseInline(link("a](x) ![b", "http://127.0.0.1:5000/#/runs/1?a=b) ![x](y"))
    children = paragraph.children or []
    assert [child.type for child in children] == ["link_open", *["text"] * (len(children) - 2), "link_close"]
    assert "".join(child.content for child in children) == "a](x) ![b"


def test_none_is_an_empty_cell() -> None:
    assert cell(None) == ""
