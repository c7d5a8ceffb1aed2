"""The five real manifests read, with the counts that come with them."""

import pytest

from pipeline.cohort.manifests import read_manifest
from pipeline.recipe import Images, Task
from tests.pipeline.archive.real import shared_data

SETS = {  # classes, train, val, test
    "thyroid_crop": (("background", "nodule"), 375, 117, 156),
    "fetal_head": (("background", "head"), 332, 112, 229),
    "breast": (("normal", "benign", "malignant"), 184, 55, 133),
    "thyroid": (("background", "nodule"), 291, 63, 194),
    "liver_kidney": (("background", "liver", "kidney"), 24, 10, 16),
}


@pytest.mark.parametrize("name", SETS)
def test_a_real_manifest_reads_with_its_counts(name):
    classes, *counts = SETS[name]
    kind = "ordinal" if name == "breast" else "segmentation"
    manifest = str(shared_data() / "real_downstream" / f"{name}.csv")
    task = Task(kind=kind, classes=classes, manifest=manifest, epochs=1, batch_size=1, learning_rate={"resnet50": 0.1})
    table = read_manifest(name, task, Images(height=64, width=96), str)
    assert [table["split"].to_pylist().count(side) for side in ("train", "val", "test")] == counts
    label = "quality" if kind == "ordinal" else "mask"
    values = {value for row in table[label].to_pylist() for value in ([row] if label == "quality" else row)}
    assert values == set(range(len(classes)))
