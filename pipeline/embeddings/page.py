"""The page of maps: the images of each encoder's map with thumbnails, facts and nearest neighbours."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.archive.crop_sheet import without_legible_text
from pipeline.cohort.image_facts import UNKNOWN, image_facts, positions_in
from pipeline.dicom.grey import jpeg, resize_grey
from pipeline.embeddings.nearest import Neighbours, nearest
from pipeline.evaluation.display_names import arm_label, backbone_label
from pipeline.files import jpeg_url, write_text
from pipeline.images.cache import cache_folder, load_pixels
from pipeline.markdown import one_line
from pipeline.pages.templates import page_templates
from pipeline.pretraining.top_folders import folders_if_known
from pipeline.recipe import Recipe
from pipeline.representation.features import Floats
from pipeline.store import Store

OTHERS, OWN = 8, 3
"""Nearest neighbours that are shown: of other patients, and of the same patient."""
TILE_HEIGHT, TILE_WIDTH = 48, 96
"""Maximum size of a thumbnail in pixels: the kind of a picture can be told, and letters on it cannot be read."""

_ACROSS: Final = 40  # thumbnails in a row of the sheet that holds them all
_SCALE: Final = 10_000  # of positions and similarities, which are written as whole numbers
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class MapInput:
    """Tables beside the embeddings: `pretraining_pool`, `dicom_index`, and `image_cache` (IMAGES)."""

    pool: pa.Table
    index: pa.Table
    images: pa.Table


def write_map_page(recipe: Recipe, store: Store, rows: pa.Table, found: MapInput) -> Path:
    """Write the page of `rows` (EMBEDDINGS of the present pool) to the recipe's private folder; returns its path.

    The same rows give the same bytes.
    """
    maps = maps_of(recipe, rows)
    images = next(iter(maps.values()))
    pixels_NHW = load_pixels(cache_folder(store.images, recipe.images, recipe.archive), _of_pool(found.pool, images))
    facts = facts_of(recipe, store, found, images)
    templates = page_templates(_HERE, _own("map_page.css"), _own("map_page.js"))
    html = templates.get_template("map_page.html").render(
        title=f"Maps of the recipe {recipe.name}",
        shown=images.num_rows,
        pool=found.pool.num_rows,
        seeds=recipe.pretraining.seeds,
        sheet=jpeg_url(jpeg(_sheet(pixels_NHW, _legible(found, images)))),
        data=_data(maps, image_ids(found.index, images), facts, pixels_NHW.shape[1:]),
    )
    path = store.private_of(recipe.name) / "embeddings.html"
    write_text(path, html)
    return path


def maps_of(recipe: Recipe, rows: pa.Table) -> dict[str, pa.Table]:
    """The rows of each encoder, by its printed name; of several pretraining seeds those of the first that has rows."""
    settings = recipe.pretraining
    found: dict[str, pa.Table] = {}
    for backbone, encoder, seed in product(settings.backbones, settings.encoders, settings.seeds):
        of_encoder = (pc.field("backbone") == backbone) & (pc.field("encoder") == encoder) & (pc.field("seed") == seed)
        chosen, name = rows.filter(of_encoder), f"{backbone_label(backbone)} {arm_label(recipe, encoder)}"
        if chosen.num_rows:
            found.setdefault(name, chosen)
    return found


def facts_of(recipe: Recipe, store: Store, found: MapInput, images: pa.Table) -> dict[str, list[str]]:
    """The facts of `images` by name; behind them each label on its own, as "yes", "no" or "unknown"."""
    folders = folders_if_known(store.private, found.pool["sop_instance"].to_pylist())
    facts = image_facts(found.pool, found.index, folders, recipe.labels)
    answers = {f"label: {name}": _answers(found.pool, name) for name in recipe.labels.names}
    positions = positions_in(found.pool, images)
    return {
        name: [one_line(values[at]) for at in positions if at is not None] for name, values in (facts | answers).items()
    }


def image_ids(index: pa.Table, images: pa.Table) -> list[str]:
    """The id of each of `images`: that of its file, a colon, and the frame number from 0, as in `rejected_frames`."""
    files = index["file_id"].take(pc.index_in(images["sop_instance"], value_set=index["sop_instance"])).to_pylist()
    return [f"{file}:{frame}" for file, frame in zip(files, images["frame"].to_pylist(), strict=True)]


def vectors_of(rows: pa.Table) -> Floats:
    """The vectors of one encoder's rows: (N, K)."""
    flat: Floats = pc.list_flatten(rows["vector"]).to_numpy().astype(np.float32)
    return flat.reshape(rows.num_rows, -1)


def neighbours_of(rows: pa.Table) -> tuple[list[Neighbours], list[Neighbours]]:
    """For each of one encoder's rows, the `OTHERS` nearest of other patients and the `OWN` nearest of the same."""
    vectors, patients = vectors_of(rows), rows["patient"].to_pylist()
    return nearest(vectors, patients, OTHERS, same_patient=False), nearest(vectors, patients, OWN, same_patient=True)


def _answers(pool: pa.Table, label: str) -> list[str]:
    return [{None: UNKNOWN, 0: "no", 1: "yes"}[value] for value in pool[label].to_pylist()]


def _of_pool(pool: pa.Table, images: pa.Table) -> pa.Table:
    return pool.take([at for at in positions_in(pool, images) if at is not None])


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _legible(found: MapInput, images: pa.Table) -> list[bool]:
    """Whether each of `images` may be shown: not if it is uncropped and its header states burned-in text."""
    return [at is not None for at in positions_in(without_legible_text(found.images, found.index), images)]


def _tile(size_HW: Sequence[int]) -> tuple[int, int]:
    """Height and width of a thumbnail of an image of `size_HW`."""
    scale = min(TILE_HEIGHT / size_HW[0], TILE_WIDTH / size_HW[1])
    return max(1, round(size_HW[0] * scale)), max(1, round(size_HW[1] * scale))


def _sheet(pixels_NHW: NDArray[np.uint8], shown: Sequence[bool]) -> NDArray[np.uint8]:
    """All thumbnails in rows of `_ACROSS`; those that are not `shown` are black."""
    height, width = _tile(pixels_NHW.shape[1:])
    sheet = np.zeros((-(-len(pixels_NHW) // _ACROSS) * height, _ACROSS * width), np.uint8)
    for at, (pixels_HW, is_shown) in enumerate(zip(pixels_NHW, shown, strict=True)):
        if is_shown:
            top, left = at // _ACROSS * height, at % _ACROSS * width
            sheet[top : top + height, left : left + width] = resize_grey(pixels_HW, height, width)
    return sheet


def _data(
    maps: Mapping[str, pa.Table], ids: Sequence[str], facts: Mapping[str, Sequence[str]], size_HW: Sequence[int]
) -> dict[str, Any]:
    """What the page's script reads."""
    height, width = _tile(size_HW)
    return {
        "tile": {"width": width, "height": height, "across": _ACROSS},
        "scale": _SCALE,
        "ids": ids,
        "facts": [{"name": name, **_coded(values)} for name, values in facts.items()],
        "maps": [{"name": name, **_map(rows)} for name, rows in maps.items()],
    }


def _coded(values: Sequence[str]) -> dict[str, Any]:
    """The distinct values, the most frequent first, and the number of each image's among them."""
    names = [value for value, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))]
    code = {name: number for number, name in enumerate(names)}
    return {"values": names, "of": [code[value] for value in values]}


def _map(rows: pa.Table) -> dict[str, Any]:
    """Positions between 0 and `_SCALE`, and neighbours as flat lists of position and similarity."""
    xy = np.column_stack([rows["x"].to_numpy(), rows["y"].to_numpy()]).astype(np.float64)
    low = xy.min(0)
    scaled = (xy - low) / max(float(np.ptp(xy, axis=0).max()), 1e-9) * _SCALE
    others, own = neighbours_of(rows)
    return {"xy": scaled.round().astype(int).tolist(), "others": _flat(others), "own": _flat(own)}


def _flat(neighbours: Sequence[Neighbours]) -> list[list[int]]:
    return [[number for at, similar in of_image for number in (at, round(similar * _SCALE))] for of_image in neighbours]
