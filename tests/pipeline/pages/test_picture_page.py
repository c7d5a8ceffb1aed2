"""The page of pictures: literal texts, no network, and pictures that decode."""

import base64
import io
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dicom.grey import jpeg, resize_to_height
from pipeline.pages.picture_page import PICTURE_HEIGHT, Intro, PictureRow, is_made_from, write_page

HOSTILE = "</h2><script>alert(1)</script><img src=http://x.example/a onerror='alert(1)'>\u202e&amp;"


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of each h2, dd, p and li."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # well-formed

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    grey = np.tile(np.arange(0, 200, dtype=np.uint8), (100, 1))
    pictures = [jpeg(resize_to_height(grey, PICTURE_HEIGHT)), jpeg(grey)]
    rows = [PictureRow(HOSTILE, [("images", "3"), (HOSTILE, HOSTILE)], pictures), PictureRow("US LIVER", [], [])]
    path = tmp_path / "page.html"
    write_page(path, f"Title {HOSTILE}", Intro([HOSTILE], ["first", HOSTILE]), rows, "0a")
    return path


def test_hostile_texts_are_shown_literally_and_add_no_element(page: Path) -> None:
    parsed = Parsed(page)
    assert not parsed.open
    assert not parsed.of("script") and len(parsed.of("img")) == 2
    assert {"onerror"}.isdisjoint(name for _, attributes in parsed.elements for name in attributes)
    literal = HOSTILE.replace("\u202e", "\ufffd")
    assert parsed.texts["h2"] == [literal, "US LIVER"]
    assert parsed.texts["dd"] == ["3", literal] and parsed.texts["dt"] == ["images", literal]
    assert parsed.texts["li"] == ["first", literal] and literal in parsed.texts["p"]
    assert parsed.texts["h1"] == parsed.texts["title"] == [f"Title {literal}"]


def test_the_page_loads_nothing_and_runs_nothing(page: Path) -> None:
    parsed = Parsed(page)
    (policy,) = (meta["content"] for meta in parsed.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.split(maxsplit=1) for part in str(policy).split("; "))
    assert directives.pop("style-src").startswith("'sha256-")
    assert directives == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    assert not {"script", "link", "iframe", "form", "base", "a", "object"} & {tag for tag, _ in parsed.elements}
    assert all(str(picture["src"]).startswith("data:image/jpeg;base64,") for picture in parsed.of("img"))


def test_the_pictures_decode_at_their_height_with_their_aspect(page: Path) -> None:
    sizes = []
    for picture in Parsed(page).of("img"):
        content = base64.b64decode(str(picture["src"]).partition(",")[2], validate=True)
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "JPEG" and image.mode == "L"
            sizes.append(image.size)
            row = np.asarray(image, float)[image.height // 2]
        assert np.abs(row - np.linspace(0, 199, row.size)).max() < 6  # the grey ramp
    assert sizes == [(600, 300), (200, 100)]


def test_only_the_user_can_read_the_page_and_equal_rows_give_equal_bytes(page: Path) -> None:
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    written = []
    for name in ("one.html", "other.html"):
        write_page(page.with_name(name), "T", Intro(["p"]), [PictureRow("t", [("a", "b")], [b"\xff"])], "0a")
        written.append(page.with_name(name).read_bytes())
    assert written[0] == written[1]


def test_a_page_names_what_it_was_made_from(page: Path) -> None:
    assert is_made_from(page, "0a") and not is_made_from(page, "0b")
    assert not is_made_from(page.with_name("absent.html"), "0a")
    write_page(page, "T", Intro(['<meta name="made-from" content="0b">']), [])
    assert not is_made_from(page, "0b")


@pytest.mark.parametrize(("shape", "width"), [((1, 1), 300), ((2, 900), 1200), ((900, 2), 1), ((480, 640), 400)])
def test_frames_of_any_shape_fit(shape: tuple[int, int], width: int) -> None:
    assert resize_to_height(np.zeros(shape, np.uint8), 300).shape == (300, width)
