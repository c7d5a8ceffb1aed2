"""Errors in tags: as frequent as their rates, and as the ground truth states."""

import csv
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest

from pipeline.phantom.protocols import OTHER_ORGANS, PROTOCOLS
from pipeline.phantom.settings import TagNoise
from pipeline.phantom.studies import clinic
from pipeline.phantom.tag_noise import examinations, hits
from tests.clinics import small_clinic

QUIET = dict.fromkeys(TagNoise.model_fields, 0.0)


@pytest.fixture(scope="module")
def table_a1():
    """Description to groups, read without the house's own reader."""
    with (files("pipeline.labels") / "study_groups.csv").open(newline="", encoding="utf-8") as file:
        return {row["study_description"]: set(row["groups"].split(",")) for row in csv.DictReader(file)}


def examined(count, **rates):
    return examinations(count, TagNoise(**QUIET | rates), np.random.default_rng(3))


def test_every_protocol_is_a_row_of_table_a1_and_other_organs_are_not(table_a1):
    assert {protocol.description for protocol in PROTOCOLS} == set(table_a1)
    assert not {protocol.description for protocol in OTHER_ORGANS} & set(table_a1)


def test_without_noise_protocols_come_at_their_frequencies():
    found = Counter(one.description for one in examined(1000))
    total = sum(protocol.weight for protocol in PROTOCOLS)
    for protocol in PROTOCOLS:
        assert abs(found[protocol.description] - 1000 * protocol.weight / total) <= 1


@pytest.mark.parametrize("kind", ["other_organ", "wrong_protocol", "misspelt", "abbreviated", "no_description"])
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.25, 1.0])
def test_a_rate_hits_that_share_of_the_studies_and_one_at_least(kind, rate):
    found = examined(40, **{kind: rate})
    assert sum(one.noise == kind for one in found) == {0.0: 0, 0.001: 1, 0.25: 10, 1.0: 40}[rate]
    assert not {one.noise for one in found} - {kind, "mapping", None}


def test_kinds_share_no_study_and_leave_the_others_as_they_were():
    found = examined(100, other_organ=0.1, wrong_protocol=0.2, misspelt=0.3, abbreviated=0.1, no_description=0.2)
    counts = Counter(one.noise for one in found)
    assert counts.pop(None) + counts.pop("mapping", 0) == 10
    assert counts == {"other_organ": 10, "wrong_protocol": 20, "misspelt": 30, "abbreviated": 10, "no_description": 20}
    for one in found:
        if one.noise in (None, "mapping"):
            assert one.description == one.protocol.description == one.named.description


def test_a_wrong_protocol_is_a_known_one_of_other_groups(table_a1):
    for one in examined(300, wrong_protocol=1.0):
        assert one.description == one.named.description
        assert table_a1[one.description] != set(one.protocol.groups)


@pytest.mark.parametrize("kind", ["misspelt", "abbreviated"])
def test_no_other_wording_is_a_known_description(kind, table_a1):
    found = examined(400, **{kind: 1.0})
    assert {one.protocol.description for one in found} == set(table_a1)  # each is hit
    for one in found:
        assert " ".join(one.description.upper().split()) not in table_a1
        assert one.named is None


def test_a_misspelling_has_the_same_letters():
    for one in examined(100, misspelt=1.0):
        assert sorted(one.description) == sorted(one.protocol.description)
        assert sum(a != b for a, b in zip(one.description, one.protocol.description, strict=True)) == 2


def test_sides_are_swapped_if_the_table_has_both():
    found = examined(400, swapped_side=1.0)
    swapped = [one for one in found if one.noise == "swapped_side"]
    assert {one.protocol.description for one in swapped} >= {
        "US CHEST TUBE PLACEMENT (LEFT)",
        "US BIOPSY KIDNEY FOCAL (RIGHT)",
    }
    for one in swapped:
        turned = {"(LEFT)": "(RIGHT)", "(RIGHT)": "(LEFT)"}
        assert one.description.split()[:-1] == one.protocol.description.split()[:-1]
        assert one.description.split()[-1] == turned[one.protocol.description.split()[-1]]
        assert {one.protocol.side, one.named.side} == {"left", "right"}
    alone = "US BIOPSY KIDNEY NONFOCAL (LEFT)"  # Table A1 has no such row of the right
    assert {one.noise for one in found if one.protocol.description == alone} == {None}


def test_the_two_rows_that_table_a1_maps_otherwise_than_those_of_the_other_side_are_known(table_a1):
    slips = [protocol for protocol in PROTOCOLS if set(protocol.groups) != table_a1[protocol.description]]
    assert [(protocol.side, protocol.groups) for protocol in slips] == [
        ("left", ("kidney", "abdomen")),
        ("left", ("kidney", "abdomen", "drainage")),
    ]
    for protocol in slips:
        assert set(protocol.groups) == table_a1[protocol.description.replace("LEFT", "RIGHT")]


def test_probes_are_missing_in_whole_studies_and_foreign_in_single_images():
    noise = TagNoise(**QUIET | {"missing_probe": 0.2, "foreign_probe": 0.1})
    plans = clinic(small_clinic(images=200, patients=25, tag_noise=noise), 0)
    studies = {plan.header.study.uid for plan in plans}
    unnamed = {plan.header.study.uid for plan in plans if "missing_probe" in plan.noise}
    assert (len(studies), len(unnamed)) == (30, 6)
    assert sum("foreign_probe" in plan.noise for plan in plans) == 20
    for plan in plans:
        tags = plan.header.transducer_type, plan.header.transducer_data
        if "foreign_probe" in plan.noise:
            assert tags[0] == "SECTOR_PHASED"
        elif plan.header.study.uid in unnamed:
            assert tags == (None, None)
        else:
            assert tags != (None, None)
            assert tags[0] in {None, plan.probe.kind} and (tags[1] or [plan.probe.model])[0] == plan.probe.model


def test_the_number_of_items_at_a_rate():
    assert [hits(0, 5), hits(0.01, 5), hits(0.5, 5), hits(1, 5), hits(1, 0)] == [0, 1, 2, 5, 0]
