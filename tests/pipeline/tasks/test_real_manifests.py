"""Real manifests: those without contradictions have their published counts, the others are refused."""

import pytest

from pipeline.errors import UserError
from pipeline.recipe.downstream import Task
from pipeline.recipe.images import Images
from pipeline.tasks.manifests import read_manifest
from tests.pipeline.archive.real import shared_data

SETS = {  # classes, train, val, test
    "fetal_head": (("background", "head"), 332, 112, 229),
    "thyroid": (("background", "nodule"), 291, 63, 194),
    "liver_kidney": (("background", "liver", "kidney"), 24, 10, 16),
}


def labelled(name, classes, kind="segmentation"):
    manifest = str(shared_data() / "real_downstream" / f"{name}.csv")
    task = Task(kind=kind, classes=classes, manifest=manifest, epochs=1, batch_size=1, learning_rate={"resnet50": 0.1})
    return read_manifest(name, task, Images(height=64, width=96), str)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.integration
def test_a_real_manifest_reads_with_its_counts(name):
    classes, *counts = SETS[name]
    table = labelled(name, classes)
    assert [table["split"].to_pylist().count(side) for side in ("train", "val", "test")] == counts
    assert {value for mask in table["mask"].to_pylist() for value in mask} == set(range(len(classes)))


@pytest.mark.parametrize(
    ("name", "line", "other"),  # found by comparing decoded pixels with NumPy, all with all
    [("thyroid_crop", 423, 104), ("breast", 230, 168)],
)
@pytest.mark.integration
def test_a_real_manifest_with_one_picture_under_two_patients_is_refused(name, line, other):
    kind, classes = ("ordinal", ("normal", "benign", "malignant")) if name == "breast" else ("segmentation", ("0", "1"))
    with pytest.raises(UserError, match=f"line {line}: image .* line {other}, of another patient"):
        labelled(name, classes, kind)
