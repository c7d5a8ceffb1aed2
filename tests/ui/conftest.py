"""A page of the browser that each file of tests starts."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE = 180_000
"""Milliseconds for what a page displays: it tests what is displayed, on machines of any speed."""


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """A page of the test's own: what an earlier test's page still requests is not its concern."""
    page = browser.new_page(viewport={"width": 1680, "height": 950})
    page.set_default_timeout(PATIENCE)
    yield page
    page.close()
