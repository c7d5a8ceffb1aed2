"""Pictures as Dagster's pages carry them: within the page's width, and otherwise as they are."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.pictures import PAGE_WIDTH, picture_url


def shown(path: Path) -> Image.Image:
    head, _, content = picture_url(path).partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_a_wide_picture_is_shown_within_the_page_and_its_file_stays(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.linear_gradient("L").resize((2 * PAGE_WIDTH, 600)).convert(mode).save(path)
    before = path.read_bytes()
    picture = shown(path)
    assert picture.size == (PAGE_WIDTH, 300)
    rows = np.asarray(picture.convert("L"))[:, 0].astype(int)
    assert rows[0] < 3 and rows[-1] > 252 and (np.diff(rows) >= 0).all()
    assert path.read_bytes() == before


def test_a_picture_that_fits_is_shown_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "fits.png"
    Image.new("L", (PAGE_WIDTH, 10)).save(path)
    assert base64.b64decode(picture_url(path).partition(",")[2]) == path.read_bytes()
