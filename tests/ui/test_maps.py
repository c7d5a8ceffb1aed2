"""The page of maps of embeddings in Chromium: what it shows by pointer and by keys, without a network."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pipeline.embeddings.conftest import HOSTILE, made, quick, written
from tests.ui.test_pages import browser, keep

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["browser", "made", "quick", "written"]
pytestmark = [pytest.mark.ui, pytest.mark.timeout(900)]


@pytest.fixture
def opened(page: "Page", written: Path) -> "Iterator[Page]":
    """The page in Chromium; it requests nothing but itself, and no script of a header runs."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(written.as_uri())
    page.locator("#legend li").first.wait_for()
    yield page
    assert [url for url in asked if not url.startswith("data:")] == [written.as_uri()] and said == []


def first_point(page: "Page") -> tuple[float, float]:
    """A place on the map, in the window, at which there is a point."""
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#hover").is_visible()
    inked = page.evaluate(
        """() => { const map = document.getElementById('map'), box = map.getBoundingClientRect();
        for (let y = 4; y < box.height; y += 2) for (let x = 4; x < box.width; x += 2) {
            map.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + x, clientY: box.top + y}));
            if (!document.getElementById('hover').hidden) return [box.left + x, box.top + y];
        } }"""
    )
    return inked[0], inked[1]


def test_pointing_shows_an_image_and_a_click_its_neighbours(opened: "Page") -> None:
    x, y = first_point(opened)
    opened.mouse.move(x, y)
    assert opened.locator("#hover canvas").is_visible() and "machine: " in opened.locator("#hover").inner_text()
    opened.mouse.move(2, 2)
    assert opened.locator("#hover").is_hidden() and opened.locator("#chosen").is_hidden()
    opened.mouse.click(x, y)
    assert opened.locator("#others button").count() == 8 and opened.locator("#own button").count() == 2
    assert re.search(r"similarity [01]\.\d{4}\s", opened.locator("#others button").first.inner_text())
    keep(opened, "map_chosen")
    before = opened.locator("#image").inner_text()
    opened.locator("#others button").first.click()
    assert opened.locator("#image").inner_text() != before


def test_keys_choose_and_the_colours_follow_the_choice_on_a_narrow_dark_screen(opened: "Page") -> None:
    opened.set_viewport_size({"width": 390, "height": 800})
    opened.emulate_media(color_scheme="dark")
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    opened.locator("#map").focus()
    for key in ("ArrowRight", "ArrowLeft", "Enter"):
        opened.keyboard.press(key)
    assert opened.locator("#chosen").is_visible() and "Chosen: " in opened.locator("#status").inner_text()
    opened.locator("#colour").select_option(label="machine")
    assert HOSTILE.replace("\u202e", "\ufffd") in opened.locator("#legend").inner_text()
    opened.locator("#encoder").select_option(label="ResNet-50 CE")
    assert opened.locator("#others button").count() == 8
    opened.locator("#map").focus()
    opened.keyboard.press("Escape")
    assert opened.locator("#chosen").is_hidden()
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
