"""The probe's shape from header fields, never guessed."""

import pytest

from pipeline.labels.probe import ProbeTags, probe_of
from pipeline.labels.probe_tables import Probes
from pipeline.recipe.labels import ProbeSource


@pytest.mark.parametrize(
    ("transducer_type", "transducer_data", "probe"),
    [
        # the paper's three
        (None, "SC6-1", "curvilinear"),
        (None, "SL10-2", "linear"),
        (None, "SL15-4\\UNUSED\\UNUSED", "linear"),
        # words
        ("LINEAR", None, "linear"),
        ("linear ", None, "linear"),
        ("CURVED LINEAR", None, "curvilinear"),
        ("CURVED_LINEAR", None, "curvilinear"),
        ("CONVEX", "", "curvilinear"),
        ("CURVED LINEAR", "C5-1\\UNUSED\\UNUSED", "curvilinear"),
        (None, "Curvilinear Array", "curvilinear"),
        # names
        (None, "C5-1\\UNUSED\\UNUSED", "curvilinear"),
        (None, "L14-6Ns", "linear"),
        (None, "C5_1\\\\", "curvilinear"),
        (None, "L12-5\\UNUSED\\UNUSED", "linear"),
        (None, "UNUSED\\L12-5", "linear"),
        # neither, or not known: missing
        ("SECTOR_PHASED", "S5-1\\UNUSED\\UNUSED", None),
        ("PHASED", "C5-1", None),
        ("VECTOR", None, None),
        ("VECTOR LINEAR", None, None),
        ("ENDOCAVITY CURVED LINEAR", None, None),
        ("LINEAR", "ENDOCAVITY", None),
        (None, "P4-2", None),
        (None, "S5-1", None),
        (None, "E8-5", None),
        (None, "C10-3v", None),
        (None, "C9-5ec", None),
        (None, "V10-4BP\\\\", None),
        (None, "X5-1", None),
        (None, "50.80.103.002\\\\", None),
        (None, "C", None),
        (None, "LOGIQ", None),
        ("MULTILINEARITY", None, None),
        ("UNUSED", "UNUSED\\UNUSED", None),
        ("", "", None),
        (None, None, None),
    ],
)
def test_the_probe_comes_from_the_header_and_is_never_guessed(transducer_type, transducer_data, probe):
    assert probe_of(ProbeTags(None, transducer_type, transducer_data), ProbeSource(), Probes()) == probe


def test_a_recipe_can_define_another_probe():
    settings = ProbeSource(models={"X5-1": "linear", "v10-4bp": "curvilinear"})
    assert probe_of(ProbeTags(None, None, "X5-1"), settings, Probes()) == "linear"
    assert probe_of(ProbeTags(None, None, "V10-4BP\\\\"), settings, Probes()) == "curvilinear"
