"""The phantom's section of a recipe: what ships, and mistakes by file and field."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.phantom.settings import Phantom, load_phantom
from pipeline.recipe import load_recipe


def test_the_papers_phantom_has_the_images_of_table_1() -> None:
    phantom = load_phantom("paper", {})
    assert (phantom.archive.images, phantom.archive.patients) == (12267, 1188)
    splits = {
        name: [getattr(getattr(phantom, name), split).images for split in ("train", "val", "test")]
        for name in ("quality", "liver_kidney", "thyroid")
    }
    assert splits == {"quality": [2548, 343, 335], "liver_kidney": [391, 100, 100], "thyroid": [298, 74, 94]}


def test_a_recipe_has_no_phantom_section_unless_it_names_one(tmp_path: Path) -> None:
    path = tmp_path / "hospital.yaml"
    path.write_text("name: a", encoding="utf-8")
    assert load_recipe(str(path), {}).phantom == {}
    assert load_phantom(str(path), {}) == load_phantom("demo", {}) == Phantom()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (
            "name: a\nphantom: {archive: {images: 3, patients: 4}}",
            r"phantom\.archive: 3 images are too few",
        ),
        ("name: a\nphantom: {tag_noise: {misspelt: 1.1}}", r"phantom\.tag_noise\.misspelt: .*less than"),
        (
            "name: a\nphantom: {tag_noise: {misspelt: -1}}",
            r"phantom\.tag_noise\.misspelt: .*greater than",
        ),
        ("name: a\nphantom: {tag_noise: {wrong_probe: 0.1}}", r"phantom\.tag_noise\.wrong_probe: no such field"),
        (
            "name: a\nphantom: {tag_noise: {misspelt: 0.6, wrong_protocol: 0.5}}",
            r"phantom\.tag_noise: other_organ, .* exceed 1 together",
        ),
        ("name: a\nphantom: {defects: {zipped: .nan}}", r"phantom\.defects\.zipped: "),
    ],
)
def test_a_mistake_names_file_and_field(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=field) as caught:
        load_phantom(str(path), {})
    assert f"Recipe {path}: " in str(caught.value)
    assert "\n" not in str(caught.value)
