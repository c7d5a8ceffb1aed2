"""Scores of what pictures suggest, counted by hand."""

from benchmarks.probe_pictures import DRAWS, Seen, score
from pipeline.labels.probe_pictures import Picture


def seen(shape, *outlines):
    return [Seen("s", f"p{number}", shape, Picture(outline)) for number, outline in enumerate(outlines)]


def test_images_and_probes_are_right_wrong_or_without_a_suggestion():
    found = score(seen("linear", "rectangle", "rectangle", "rectangle", "arc", None))
    assert found.by_image == {"right": 3, "wrong": 1, "none": 1}
    assert found.by_probe == {"right": DRAWS}  # each draw has all five patients
    assert score(seen("curvilinear", "rectangle")).by_probe == {"wrong": DRAWS}
    assert score(seen("phased", "trapezoid")).by_probe == {"none": DRAWS}


def test_a_probe_is_drawn_from_one_image_of_each_patient():
    one_patient = [Seen("s", "p", "linear", Picture(outline)) for outline in ("rectangle", "arc")]
    found = score(one_patient).by_probe
    assert set(found) == {"right", "wrong"} and sum(found.values()) == DRAWS
