"""Conversion of the public thyroid set: rows of good cases, and reports of bad ones."""

import csv
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.tasks.thyroid_set import MANIFEST, convert, main
from tests.pipeline.archive.synthetic import noise
from tests.pipeline.tasks.test_manifests import read, segmentation

SQUARE = [(10, 5), (29, 5), (29, 24), (10, 24)]
TRIANGLE = [(40, 30), (60, 30), (40, 45)]
HEAD = (
    "<number>{case}</number><age>51</age><sex>F</sex><composition>solid</composition>"
    "<echogenicity>hypoechogenicity</echogenicity><margins>ill defined</margins>"
    "<calcifications>microcalcifications</calcifications><tirads>4a</tirads><reportbacaf/><reporteco/>"
)


def region(points):
    return {"points": [{"x": x, "y": y} for x, y in points], "annotation": {}, "regionType": "freehand"}


def svg(*outlines):
    return json.dumps([region(points) for points in outlines])


def write_case(folder, case, marks, pictures=(1,)):
    """`case`.xml with `marks`, (picture's number, text of its svg), and `pictures` of 64 x 80 beside it."""
    folder.mkdir(exist_ok=True)
    text = "".join(f"<mark><image>{number}</image><svg>{drawn}</svg></mark>" for number, drawn in marks)
    head = '<?xml version="1.0" encoding="UTF-8" standalone="no"?>'
    (folder / f"{case}.xml").write_text(f"{head}<case>{HEAD.format(case=case)}{text}</case>", encoding="utf-8")
    for number in pictures:
        Image.fromarray(noise(64, 80, 10 * case + number)).convert("RGB").save(folder / f"{case}_{number}.jpg")


def rows(out):
    with open(out / MANIFEST, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mask(out, row):
    return np.asarray(Image.open(out / row["mask"]))


def square():
    values = np.zeros((64, 80), np.uint8)
    values[5:25, 10:30] = 1
    return values


def test_every_outlined_picture_is_a_row_grouped_by_case(tmp_path):
    source, out = tmp_path / "tdid", tmp_path / "out"
    write_case(source, 2, [(1, svg(SQUARE)), (10, svg(SQUARE)), (2, svg(TRIANGLE))], pictures=(1, 2, 10))
    write_case(source, 10, [(1, svg(SQUARE)), (2, "")], pictures=(1, 2, 3))
    converted = convert(source, out)
    assert (converted.images, converted.cases, converted.without_outline, converted.problems) == (4, 2, 2, ())
    assert [(row["image"], row["mask"], row["patient"]) for row in rows(out)] == [
        ("../tdid/2_1.jpg", "masks/2_1.png", "case-2"),
        ("../tdid/2_2.jpg", "masks/2_2.png", "case-2"),
        ("../tdid/2_10.jpg", "masks/2_10.png", "case-2"),
        ("../tdid/10_1.jpg", "masks/10_1.png", "case-10"),
    ]
    assert np.array_equal(mask(out, rows(out)[0]), square())


def test_several_regions_of_a_picture_are_one_mask(tmp_path):
    source, out = tmp_path / "tdid", tmp_path / "out"
    write_case(source, 1, [(1, svg(SQUARE, TRIANGLE))])
    write_case(source, 2, [(1, svg(SQUARE)), (1, svg(TRIANGLE, []))])
    convert(source, out)
    together, apart = (mask(out, row) for row in rows(out))
    assert np.array_equal(together, apart)
    assert np.array_equal(together[:, :35], square()[:, :35])
    assert together[32, 45] == 1 and together[44, 58] == 0
    assert 150 <= together[:, 35:].sum() <= 190  # half of 20 x 15, and the outline


def test_an_outline_that_leaves_the_picture_is_cut_off_at_its_edge(tmp_path):
    write_case(tmp_path / "tdid", 1, [(1, svg([(-20, -20), (9, -20), (9, 9), (-20, 9)]))])
    convert(tmp_path / "tdid", tmp_path / "out")
    made = mask(tmp_path / "out", rows(tmp_path / "out")[0])
    assert made[:10, :10].all() and made.sum() == 100


def test_the_manifest_is_read_as_any_other_and_each_case_gets_one_split(tmp_path):
    source, out = tmp_path / "tdid", tmp_path / "out"
    for case in range(1, 7):
        write_case(source, case, [(1, svg(SQUARE)), (2, svg(TRIANGLE))], pictures=(1, 2))
    convert(source, out)
    table = read(segmentation(out / MANIFEST))
    assert table.num_rows == 12
    sides = dict(zip(table["patient"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert [sides[patient] for patient in table["patient"].to_pylist()] == table["split"].to_pylist()
    first = np.frombuffer(table["mask"][0].as_py(), np.uint8).reshape(32, 64)
    assert first.mean() == pytest.approx(square().mean(), abs=0.01)


BAD_MARKS = {
    "not json": ("[{points", "JSON"),
    "cut off": (svg(SQUARE)[:-20], "JSON"),
    "no list": ('{"points": []}', "JSON"),
    "no points": ('[{"regionType": "freehand"}]', "JSON"),
    "not finite": ('[{"points": [{"x": NaN, "y": 1}]}]', "JSON"),
    "nested": ("[" * 100_000, "JSON"),
    "two points": (svg([(1, 1), (5, 5)]), "a region has 2 points"),
    "elsewhere": (svg([(900, 900), (950, 900), (900, 950)]), "far outside"),
    "huge": (svg([(1e300, 1), (1, 1), (1, 9)]), "far outside"),
    "beside": (svg([(100, 5), (120, 5), (120, 15)]), "within"),
}


@pytest.mark.parametrize("kind", BAD_MARKS)
def test_a_bad_outline_skips_its_image_and_is_reported(tmp_path, kind):
    source, out = tmp_path / "tdid", tmp_path / "out"
    drawn, says = BAD_MARKS[kind]
    write_case(source, 1, [(1, svg(SQUARE)), (2, drawn), (3, svg(SQUARE))], pictures=(1, 2, 3))
    write_case(source, 2, [(1, svg(SQUARE))])
    converted = convert(source, out)
    assert [row["mask"] for row in rows(out)] == ["masks/1_1.png", "masks/1_3.png", "masks/2_1.png"]
    (problem,) = converted.problems
    assert problem.startswith("Case 1: image 2 ") and says in problem and "\n" not in problem
    assert converted.without_outline == 0


def test_a_missing_and_a_broken_image_are_reported(tmp_path):
    source = tmp_path / "tdid"
    write_case(source, 1, [(1, svg(SQUARE)), (2, svg(SQUARE)), (3, svg(SQUARE))], pictures=(3,))
    (source / "1_2.jpg").write_bytes(b"\xff\xd8 no picture")
    (problem,) = convert(source, tmp_path / "out").problems
    assert problem.startswith("Case 1: ")
    assert [part for part in problem.split() if part.rstrip(";.").endswith(".jpg")] == ["1_1.jpg;", "1_2.jpg"]
    assert rows(tmp_path / "out")[0]["image"].endswith("1_3.jpg")


BOMB = (
    '<!DOCTYPE case [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghi"))
    + "]><case><mark><image>1</image><svg>&i;</svg></mark></case>"
)
OUTSIDE = (
    '<!DOCTYPE case [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
    "<case><mark><image>1</image><svg>&a;</svg></mark></case>"
)
BAD_XML = {
    "bomb": (BOMB.encode(), "document type"),
    "bomb in utf-16": (f'<?xml version="1.0" encoding="UTF-16"?>{BOMB}'.encode("utf-16"), "document type"),
    "outside": (OUTSIDE.encode(), "document type"),
    "empty": (b"", "parsed"),
    "cut off": (b"<case><mark><image>1</image>", "parsed"),
    "unknown encoding": (b'<?xml version="1.0" encoding="none-such"?><case/>', "parsed"),
    "too long": (b"<case>" + b" " * 5_000_000 + b"</case>", "more than 4 MiB"),
    "a path for a number": (b"<case><mark><image>../../1</image><svg>[]</svg></mark></case>", "number"),
}


@pytest.mark.parametrize("kind", BAD_XML)
def test_a_case_that_cannot_be_read_is_skipped_and_reported(tmp_path, kind):
    source, out = tmp_path / "tdid", tmp_path / "out"
    content, says = BAD_XML[kind]
    write_case(source, 1, [], pictures=(1,))
    (source / "1.xml").write_bytes(content)
    write_case(source, 2, [(1, svg(SQUARE))])
    converted = convert(source, out)
    (problem,) = converted.problems
    assert problem.startswith("Case 1 is skipped: ") and says in problem and "\n" not in problem
    assert [row["patient"] for row in rows(out)] == ["case-2"]


def test_the_command_prints_counts_and_skipped_images(tmp_path, capsys):
    source, out = tmp_path / "tdid", tmp_path / "out"
    write_case(source, 1, [(1, svg(SQUARE))], pictures=(1, 2))
    write_case(source, 2, [(1, "[")])
    assert main([str(source), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert re.findall(r"(?<!\S)\d+", said.out) == ["1", "1", "1"] and str(out / MANIFEST) in said.out
    assert said.err.startswith("Case 2: image 1 ")


def test_a_folder_without_a_case_and_one_without_a_good_one_are_refused(tmp_path, capsys):
    with pytest.raises(UserError, match=r"1\.xml"):
        convert(tmp_path, tmp_path / "out")
    write_case(tmp_path / "tdid", 1, [(1, "[")])
    assert main([str(tmp_path / "tdid"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "tdid") in said and "Case 1" in said and said.count("\n") == 1
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_a_case_without_outlines_is_accepted_but_a_set_of_only_such_cases_is_refused(tmp_path):
    write_case(tmp_path / "tdid", 1, [(1, ""), (2, "[]")], pictures=(1, 2))
    with pytest.raises(UserError, match="no image is outlined"):
        convert(tmp_path / "tdid", tmp_path / "out")
