import pytest

from pipeline.phantom.clinic import make_phantom
from tests.clinics import labelled, small_clinic

SMALL = small_clinic(
    images=60,
    patients=7,
    quality=labelled(2, (3, 1, 2)),
    liver_kidney=labelled(2, (1, 1, 1)),
    thyroid=labelled(2, (1, 1, 1)),
)


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "small"
    make_phantom(folder, 0, SMALL)
    return folder
