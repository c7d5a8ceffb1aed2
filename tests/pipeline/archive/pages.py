"""Report pages and worksheets as scanners and reporting systems send them: text, tables, headers, curves, no tissue.

Every seed gives another page; nothing of it is taken from a real one.
"""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

RGB = npt.NDArray[np.uint8]

FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic", "STIXGeneral", "cmr10")
SIZES = ((640, 480), (800, 600), (1024, 768), (1280, 960), (1240, 1754), (720, 576))  # width, height
POLARITIES = (  # paper, ink, second ink, panel
    ("black", "white", "yellow", "#202050"),
    ("white", "black", "#204080", "#d0d8e8"),
    ("#101828", "#e0e0e0", "#40c0ff", "#283850"),
    ("#303030", "#c8c8c8", "#ffffff", "#505050"),
    ("#c0c0c0", "black", "#800000", "#e8e8e8"),
    ("black", "#808080", "#a0a0a0", "#181818"),
)
TEMPLATES = ("lines", "table", "columns", "form", "curves", "title", "header", "bilingual", "prose", "dense")
WORDS = {
    "latin": "LIVER,Length,Mean,Diameter,BPD,HC,AC,FL,Gestational,age,Kidney,left,right,cm,mm,Volume,RI,Normal",
    "cyrillic": "ПЕЧЕНЬ,длина,среднее,почка,левая,правая,объём,заключение,норма,пациент",
    "greek": "ΗΠΑΡ,μήκος,νεφρός,δεξιός,αριστερός,όγκος,μέση,τιμή",
    "german": "Größe,Leber,Niere,rechts,links,Beurteilung,unauffällig,Schilddrüse,Übersicht",
}


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


class _Page:
    """A canvas with a font, inks and a cursor."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.template = TEMPLATES[seed % len(TEMPLATES)]
        self.width, self.height = SIZES[seed % len(SIZES)]
        self.paper, self.ink, self.second, self.panel = POLARITIES[(seed // 2) % len(POLARITIES)]
        self.name = FONTS[seed % len(FONTS)]
        self.size = max(9, round(self.height / self.random.uniform(26, 58)))
        self.canvas = Image.new("RGB", (self.width, self.height), self.paper)
        self.draw = ImageDraw.Draw(self.canvas)

    def write(self, x: float, y: float, text: str, ink: str | None = None, larger: float = 1) -> None:
        self.draw.text((x, y), text, fill=ink or self.ink, font=_font(self.name, round(self.size * larger)))

    def words(self, count: int, script: str = "latin") -> str:
        return " ".join(self.random.choice(WORDS[script].split(",")) for _ in range(count))

    def number(self) -> str:
        return f"{self.random.uniform(0, 99):5.2f}"

    def rows(self, top: float = 0.12, bottom: float = 0.95, spaced: float = 1.5) -> Iterator[float]:
        y = top * self.height
        while y < bottom * self.height:
            yield y
            y += self.size * spaced


def report_page(seed: int) -> RGB:
    """Page number `seed`, height x width x 3."""
    page = _Page(seed)
    page.write(20, 8, "GENERAL HOSPITAL   DOE^JANE   ID 00123456   1964-08-12")
    globals()[f"_{page.template}"](page)
    return np.asarray(page.canvas)


def _lines(page: _Page) -> None:
    for y in page.rows():
        page.write(0.06 * page.width, y, f"{page.words(2)}   {page.number()} cm   {page.words(1)} {page.number()}")


def _dense(page: _Page) -> None:
    for y in page.rows(0.07, 0.98, 1.15):
        page.write(8, y, "  ".join(f"{page.words(2)} {page.number()}" for _ in range(6)))


def _prose(page: _Page) -> None:
    for y in page.rows(0.15, 0.7):
        page.write(0.08 * page.width, y, page.words(int(page.random.integers(7, 11))))


def _title(page: _Page) -> None:
    for row, text in enumerate(("DOE^JANE", "1964-08-12  F", "ABDOMEN", page.words(3))):
        page.write(0.2 * page.width, (0.3 + 0.12 * row) * page.height, text, larger=2)


def _table(page: _Page) -> None:
    pitch = round(1.7 * page.size)
    for row in range(int(0.8 * page.height) // pitch):
        y = 0.12 * page.height + row * pitch
        if row % 2:
            page.draw.rectangle((20, y, page.width - 20, y + pitch), fill=page.panel)
        page.draw.line((20, y, page.width - 20, y), fill=page.second)
        for column in range(5):
            x = 24 + column * (page.width - 40) / 5
            page.write(x, y + 0.2 * page.size, page.words(1) if not column else page.number())
            page.draw.line((x - 4, y, x - 4, y + pitch), fill=page.second)


def _columns(page: _Page) -> None:
    for y in page.rows():
        for x in (0.04, 0.52):
            page.write(x * page.width, y, f"{page.words(2)}  {page.number()}", page.ink if x < 0.5 else page.second)


def _form(page: _Page) -> None:
    for y in page.rows(spaced=2.6):
        page.write(0.05 * page.width, y, page.words(2), page.second)
        box = (0.4 * page.width, y - 3, 0.9 * page.width, y + 1.5 * page.size)
        page.draw.rectangle(box, fill=page.panel, outline=page.ink)
        page.write(0.41 * page.width, y, page.number())


def _header(page: _Page) -> None:
    """A header that fades from one colour to the other, a round logo, lines below."""
    depth = round(0.14 * page.height)
    fade = np.linspace((30, 60, 140), (140, 170, 230), page.width).astype(np.uint8)
    page.canvas.paste(Image.fromarray(np.repeat(fade[None], depth, 0)), (0, 0))
    page.draw.ellipse((12, 6, depth - 6, depth - 12), fill="#e04040", outline="white", width=3)
    page.write(depth + 20, depth / 4, "UNIVERSITY CLINIC  DOE JANE", "white", 1.4)
    for y in page.rows(0.2):
        page.write(0.06 * page.width, y, f"{page.words(3)}  {page.number()}", page.second if y < 200 else page.ink)


def _curves(page: _Page) -> None:
    """Growth charts: percentile curves with points, axes and a legend."""
    for left, right in ((0.05, 0.46), (0.54, 0.95)):
        x = np.linspace(left * page.width, right * page.width, 60)
        for curve in range(5):
            y = page.height * (0.8 - (0.35 + 0.05 * curve) * np.linspace(0, 1, 60) ** 0.7)
            page.draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=page.second, width=1 + (curve == 2))
        page.draw.rectangle((x[0], 0.25 * page.height, x[-1], 0.85 * page.height), outline=page.ink)
        for _ in range(8):
            at = page.random.uniform((x[0], 0.4 * page.height), (x[-1], 0.75 * page.height))
            page.draw.ellipse((*(at - 4), *(at + 4)), fill="red")
        page.write(x[0], 0.18 * page.height, f"{page.words(2)} {page.number()}")
        page.write(x[0], 0.88 * page.height, "12  16  20  24  28  32  36 w")


def _bilingual(page: _Page) -> None:
    page.name = "DejaVuSans" if page.name in {"cmr10", "STIXGeneral"} else page.name
    for number, y in enumerate(page.rows()):
        script = ("cyrillic", "greek", "german")[number % 3]
        page.write(0.03 * page.width, y, page.words(3))
        page.write(0.5 * page.width, y, f"{page.words(3, script)} {page.number()}", page.second)


def as_stored(page: RGB, seed: int) -> RGB:
    """The page as it comes out of an archive: as it is, through JPEG of a quality, or scaled down, in turn."""
    if seed % 3 == 0:
        return page
    image = Image.fromarray(page)
    if seed % 3 == 2:
        image = image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.BILINEAR)
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=(60, 75, 90)[seed // 3 % 3])
    return np.asarray(Image.open(packed))
