"""The table of inpainting errors."""

from pipeline.evaluation.inpainting_error import InpaintingError, inpainting_table
from pipeline.recipe import Recipe
from tests.pipeline.evaluation.conftest import lines


def test_inpainting_has_a_row_per_seed(recipe: Recipe) -> None:
    rows = [InpaintingError("resnet50", "ce", seed, error, 0.5) for seed, error in ((0, 0.4), (1, 0.6))]
    assert lines(inpainting_table(recipe, rows).markdown(), "| ResNet-50") == [
        ["ResNet-50", "CE", "0", "0.400", "0.500", "yes"],
        ["ResNet-50", "CE", "1", "0.600", "0.500", "no"],
    ]
