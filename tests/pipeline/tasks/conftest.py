import numpy as np
import pytest
from PIL import Image

from tests.pipeline.archive.synthetic import noise


@pytest.fixture
def rows(tmp_path):
    """Rows of a good manifest of six patients, one image each, with files for either kind of task."""
    made = []
    for number, split in enumerate(("train", "train", "train", "train", "val", "test")):
        Image.fromarray(noise(64, 64, number)).save(tmp_path / f"{number}.png")
        mask = np.zeros((64, 64), np.uint8)
        mask[:32, : 8 * number + 8] = 1
        Image.fromarray(mask).save(tmp_path / f"{number}_mask.png")
        made.append({"image": f"{number}.png", "quality": str(number % 3), "patient": f"p{number}", "split": split})
    return made
