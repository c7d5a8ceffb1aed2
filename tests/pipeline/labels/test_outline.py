"""Outlines of drawn pictures: the area is computed from the geometry of beams, row by row and column by column."""

import numpy as np
import pytest

from pipeline.labels.outline import outline_of

HEIGHT, WIDTH = 64, 96
ROW, COLUMN = (grid + 0.5 for grid in np.mgrid[:HEIGHT, :WIDTH].astype(float))
ACROSS = COLUMN - WIDTH / 2


def textured(inside, seed=0):
    """Grey levels of 40 to 200 inside, black outside."""
    return np.where(inside, np.random.default_rng(seed).integers(40, 200, inside.shape), 0).astype(np.uint8)


def sector(radius, half_degrees, depth=None):
    """A sector whose face is an arc of that radius about an apex above; its ends are in the first row."""
    half = np.radians(half_degrees)
    apex = -radius * np.cos(half)
    away, angle = np.hypot(ACROSS, ROW - apex), np.abs(np.arctan2(ACROSS, ROW - apex))
    return (away >= radius) & (angle <= half) & (away <= radius + (depth or HEIGHT))


def widening(top, bottom):
    """Straight edges: `top` and `bottom` are widths in pixels."""
    return np.abs(ACROSS) <= (top + (bottom - top) * ROW / HEIGHT) / 2


def steered(width, shift):
    """A parallelogram that leans to the right by `shift` pixels."""
    return np.abs(COLUMN - (width + shift * ROW / HEIGHT * 2) / 2) <= width / 2


SHAPES = {
    "arc face": (sector(30, 35), "arc"),
    "arc face of a small radius": (sector(16, 38), "arc"),
    "flat arc, shallow": (sector(80, 20), "arc"),
    "sector cut off above": (widening(30, 96), "narrow"),
    "trapezoid": (widening(60, 90), "trapezoid"),
    "rectangle": (widening(96, 96), "rectangle"),
    "rectangle between black bars": (widening(50, 50), "rectangle"),
    "parallelogram": (steered(60, 30), "rectangle"),
    "point": (widening(0, 90), "point"),
    "point with a small face": (widening(8, 96), "point"),
}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_the_outline_of_a_drawn_area_is_found_also_mirrored(name, mirrored):
    inside, outline = SHAPES[name]
    assert outline_of(textured(inside[:, ::-1] if mirrored else inside)) == outline


@pytest.mark.parametrize("factor", [2, 5])
def test_the_size_of_the_image_does_not_count(factor):
    for inside, outline in SHAPES.values():
        larger = np.kron(textured(inside), np.ones((factor, factor), np.uint8))
        assert outline_of(larger) == outline


def test_faint_noise_outside_and_specks_above_the_face_do_not_count():
    rng = np.random.default_rng(1)
    for inside, outline in SHAPES.values():
        grey = np.maximum(textured(inside), rng.integers(0, 8, inside.shape)).astype(np.uint8)
        assert outline_of(grey) == outline
    arc = textured(sector(30, 35))
    arc[1, WIDTH // 2] = 80  # no mean of nine exceeds 9
    assert outline_of(arc) == "arc"


def test_dark_tissue_below_a_lit_near_field_keeps_a_rectangle():
    grey = textured(widening(96, 96))
    grey[10:, 20:] = 0
    assert outline_of(grey) == "rectangle"


@pytest.mark.parametrize(
    "grey",
    [
        np.zeros((HEIGHT, WIDTH)),
        np.random.default_rng(0).integers(0, 8, (HEIGHT, WIDTH)),
        textured((np.abs(ROW - 30) < 2) & (np.abs(ACROSS) < 6)),
        textured(ROW > COLUMN / 2),
        textured(20 * np.abs(np.sin(COLUMN / 5)) < ROW),
        textured(np.hypot(ROW - 32, ACROSS) < 30),
    ],
    ids=["black", "noise of black", "one speck", "slanted", "waves", "disc"],
)
def test_what_is_none_of_the_forms_has_no_outline(grey):
    assert outline_of(grey.astype(np.uint8)) is None


def test_a_sector_that_lies_on_its_side_has_no_outline():
    inside = np.abs(ROW - HEIGHT / 2) <= 4 + COLUMN / 4
    assert outline_of(textured(inside)) is None
