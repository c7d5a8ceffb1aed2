"""The distance of outlines against MONAI, and by hand."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from pipeline.evaluation.hausdorff import hausdorff95, hausdorff_distances
from tests.pipeline.evaluation.test_metrics import segmentation

RNG = np.random.default_rng(9)


def blobs(shape: tuple[int, int] = (32, 48)) -> np.ndarray:
    return gaussian_filter(RNG.normal(size=shape), 3) > 0


def square(row: int, column: int, side: int) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[row : row + side, column : column + side] = True
    return mask


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
@pytest.mark.parametrize("number", range(5))
def test_the_distance_is_monais(number: int) -> None:
    """On ragged masks with holes that touch the image's border."""
    predicted, truth = blobs(), blobs()
    expected = compute_hausdorff_distance(
        torch.tensor(predicted)[None, None], torch.tensor(truth)[None, None], include_background=True, percentile=95
    )
    assert hausdorff95(predicted, truth) == pytest.approx(expected.item(), abs=1e-5)


def test_a_square_moved_by_seven_pixels_is_seven_pixels_away() -> None:
    assert hausdorff95(square(5, 5, 20), square(5, 12, 20)) == 7
    assert hausdorff95(square(5, 5, 20), square(5, 5, 20)) == 0


def test_one_far_pixel_in_a_long_outline_does_not_count() -> None:
    far = square(5, 5, 20)
    far[39, 59] = True
    assert hausdorff95(far, square(5, 5, 20)) == 0


def test_two_empty_masks_agree_and_one_empty_mask_is_as_far_as_the_image_goes() -> None:
    empty = np.zeros((40, 60), bool)
    assert hausdorff95(empty, empty) == 0
    assert hausdorff95(empty, square(0, 0, 3)) == hausdorff95(square(0, 0, 3), empty) == pytest.approx(np.hypot(40, 60))


def test_predictions_give_a_distance_per_image_and_class() -> None:
    truth = np.stack([1 * square(5, 5, 10) + 2 * square(20, 30, 10)] * 2)
    predicted = np.stack([truth[0], 1 * square(5, 8, 10) + 2 * square(20, 35, 10)])
    assert hausdorff_distances(segmentation(truth, predicted, (1, 2)), 2).tolist() == [[0, 0], [3, 5]]
