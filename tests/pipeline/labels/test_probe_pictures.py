"""What the pictures of a probe suggest."""

import numpy as np
import pytest

from pipeline.labels.probe_pictures import Picture, picture_of, shape_shown, suggestion_of

ARC, BOX, NOTHING = Picture("arc"), Picture("rectangle"), Picture(None)


@pytest.mark.parametrize(
    ("outline", "by_face"),
    [
        ("arc", dict.fromkeys((None, "above", "edge", "below"), "curvilinear")),
        ("point", dict.fromkeys((None, "above", "edge", "below"), "phased")),
        ("narrow", {None: "curvilinear", "above": "curvilinear", "edge": None, "below": "curvilinear"}),
        ("trapezoid", {None: None, "above": "curvilinear", "edge": "linear", "below": "curvilinear"}),
        ("rectangle", {None: "linear", "above": None, "edge": "linear", "below": None}),
        (None, {None: None, "above": None, "edge": None, "below": "curvilinear"}),
    ],
)
def test_outline_and_face_together_suggest_a_shape(outline, by_face):
    assert {face: shape_shown(Picture(outline, face)) for face in by_face} == by_face


@pytest.mark.parametrize(
    ("pictures", "shape"),
    [
        ([ARC] * 9, "curvilinear"),
        ([ARC] * 6 + [BOX] * 2 + [NOTHING], "curvilinear"),
        ([ARC] * 4 + [BOX] * 2, None),  # another shape has half as many
        ([ARC] * 2 + [NOTHING] * 7, "curvilinear"),
        ([ARC] + [NOTHING] * 8, None),  # less than a fifth
        ([BOX], "linear"),
        ([NOTHING], None),
        ([Picture("trapezoid")] * 9, None),
        ([Picture("trapezoid", "edge")] * 9, "linear"),
    ],
)
def test_most_of_the_pictures_suggest_a_shape(pictures, shape):
    found = suggestion_of(pictures)
    assert found is not None and found.shape == shape


def test_the_reason_counts_what_the_pictures_and_their_headers_show():
    found = suggestion_of([ARC] * 5 + [Picture("rectangle", "above")] * 3 + [NOTHING])
    assert found is not None
    assert found.why == (
        "of 9 images, 5 with an arc as upper edge, 3 with a rectangle, 1 with no clear outline, "
        "3 with the face above the picture by the header"
    )
    assert suggestion_of([]) is None


def test_a_rectangle_that_is_the_whole_frame_is_no_outline():
    grey = np.random.default_rng(0).integers(40, 200, (64, 96)).astype(np.uint8)
    found = {by: picture_of(grey, by, "edge") for by in ("regions", "detected", "whole")}
    assert found == {
        "regions": Picture("rectangle", "edge"),
        "detected": Picture("rectangle", "edge"),
        "whole": Picture(None, "edge"),
    }
    wedge = np.where(np.abs(np.arange(96) - 47.5) <= 16 + np.arange(64)[:, None] / 2, grey, 0)
    assert picture_of(wedge.astype(np.uint8), "whole", None) == Picture("narrow")
