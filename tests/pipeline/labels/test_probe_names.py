"""Names of probes in TransducerData, how they compare, and patterns of names."""

import pytest

from pipeline.labels.makers import MAKERS, maker_of
from pipeline.labels.probe_names import NamePattern, name_key, names_in


@pytest.mark.parametrize(
    ("manufacturer", "maker"),
    [
        ("SAMSUNG MEDISON CO., LTD.", "Samsung"),
        ("TOSHIBA_MEC_US", "Canon"),
        ("CANON_MEC", "Canon"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("GE Healthcare", "GE"),
        ("G.E. Medical Systems", "GE"),
        ("Kretztechnik AG", "GE"),
        ("ACUSON", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("Philips Medical Systems", "Philips"),
        ("SonoSite, Inc.", "SonoSite"),
        ("FUJIFILM SonoSite", "SonoSite"),
        ("Fujifilm", "Hitachi"),
        ("Hitachi Aloka Medical, Ltd.", "Hitachi"),
        ("ALOKA CO., LTD.", "Hitachi"),
        ("SuperSonic Imagine SA", "SuperSonic"),
        ("B-K Medical", "BK"),
        ("Butterfly Network", "Butterfly"),
        ("SHENZHEN MINDRAY BIO-MEDICAL", "Mindray"),
        ("GENERIC", None),
        ("Phantom Imaging", None),
        ("", None),
        (None, None),
    ],
)
def test_a_maker_is_read_from_what_files_call_it(manufacturer, maker):
    assert maker_of(manufacturer) == maker


def test_each_maker_s_own_name_is_itself():
    assert {maker: maker_of(maker) for maker in MAKERS} == {maker: maker for maker in MAKERS}


@pytest.mark.parametrize(
    ("data", "maker", "names"),
    [
        ("C5_1\\54629\\ ", "Philips", ("C5_1",)),
        ("C1-6\\575\\836357531", "GE", ("C1-6",)),
        ("b6\\6C2-S", "Siemens", ("6C2-S",)),
        ("4C\\575", "GE", ("4C",)),
        ("PVT-375BT\\\\", "Canon", ("PVT-375BT",)),
        ("UNUSED\\UNUSED\\UNUSED", "Philips", ()),
        ("50.80.103.002\\\\", "SonoSite", ()),
        ("8848", "BK", ("8848",)),
        ("8848\\23156", "BK", ("8848",)),
        ("8848", "GE", ()),
        ("8848", None, ()),
        (" L  4-15 ", "Esaote", ("L 4-15",)),
        ("6C1 HD\x00", "Siemens", ("6C1 HD",)),
        ("SC6-1\\SL10-2", None, ("SC6-1", "SL10-2")),
        ("", None, ()),
        (None, None, ()),
    ],
)
def test_numbers_and_empty_values_are_no_names(data, maker, names):
    assert names_in(data, maker) == names


@pytest.mark.parametrize("name", ["C5-1", "c5_1", " C5 - 1 ", "C5–1", "Ｃ5-1", "C5−1"])
def test_case_spaces_and_dashes_do_not_count(name):
    assert name_key(name) == "C5-1"


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("L#-#", ("L12-3", "L4-15"), ("L12", "L12-3v", "L-3", "eL18-4", "L1a-3")),
        ("#C#", ("6C1", "12C34"), ("6CV1", "C1", "6C")),
        ("#L#?", ("7L4A",), ("7L4", "7L45", "7L4AB", "7L4-")),
        ("PL?-#*", ("PLT-705BT", "PLI-1205BX", "PLT-1"), ("PL-705", "PLT-", "XPLT-705")),
        ("6C1", ("6C1",), ("6C12", "6C")),
        ("L#-#/#", ("L14-5/38",), ("L14-5",)),
        ("3.5C", ("3.5C",), ("305C",)),
        ("A+#(B)", ("A+1(B)",), ("AA1B",)),
    ],
)
def test_a_pattern_fits_whole_names_only(pattern, fitting, others):
    form = NamePattern(pattern)
    assert [name for name in (*fitting, *others) if form.fits(name_key(name))] == list(fitting)
    assert all(form.meets(NamePattern(name_key(name))) for name in fitting)
    assert not any(form.meets(NamePattern(name_key(name))) for name in others)


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("C#-#*", "C#-#V", True),
        ("C#-#?", "C#-#V", True),
        ("C#-#", "C#-#V", False),
        ("#C*", "6C2-S", True),
        ("#*A", "1B*", True),
        ("#*A", "1B*C", False),
        ("P#-#?", "P#-#T?", False),
        ("L#", "L12", True),
        ("L?", "L#", False),
        ("*A", "B*", True),
        ("A*", "B*", False),
        ("UST-52#", "UST-5#", True),
        ("UST-52#", "UST-54#", False),
    ],
)
def test_two_patterns_meet_if_some_name_fits_both(one, other, common):
    assert NamePattern(one).meets(NamePattern(other)) is common
    assert NamePattern(other).meets(NamePattern(one)) is common


@pytest.mark.parametrize("text", ["", "884", "88481", "#-#", "*", "L*-*", "L##"])
def test_a_name_needs_a_letter_and_a_pattern_is_quick_to_match(text):
    with pytest.raises(ValueError, match=r"has no letter|has \* more than once, or two #"):
        NamePattern(text)


def test_a_hostile_pattern_is_matched_in_no_time():
    assert not NamePattern("A*" + "#?" * 30 + "B").fits("A" + "1A" * 5000)
