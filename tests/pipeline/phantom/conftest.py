import pytest

from pipeline.phantom.clinic import Size, write_phantom
from pipeline.phantom.downstream import LabelledSet

SMALL = Size(
    patients=7,
    sets=(
        LabelledSet("quality", "quality", 2, (3, 1, 2)),
        LabelledSet("liver_kidney", "mask", 2, (1, 1, 1)),
        LabelledSet("thyroid", "mask", 2, (1, 1, 1)),
    ),
)


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "small"
    write_phantom(folder, 0, SMALL)
    return folder
