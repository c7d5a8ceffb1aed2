"""The shipped table of probes, and tables of users."""

import csv
from importlib.resources import files

import pytest

from pipeline.errors import UserError
from pipeline.labels.makers import MAKERS
from pipeline.labels.probe import ProbeTags, probe_of, shape_of_probe
from pipeline.labels.probe_tables import Probes, ProbeTable, probes_for, read_probe_tables, shipped_probes
from pipeline.labels.study_groups import read_study_groups
from pipeline.recipe.labels import SHAPES, Labels, ProbeSource, StudyGroupsSource

HEADER = "manufacturer,name,shape\n"

# Manufacturer and TransducerData as files have them. The shapes are those of the sources that `probes.csv` names.
FACTS = [
    ("Philips Medical Systems", "C5_1\\54629\\ ", "curvilinear"),
    ("Philips Medical Systems", "C5_2\\\\", "curvilinear"),
    ("Philips Medical Systems", "C9_2\\54689\\", "curvilinear"),
    ("Philips Medical Systems", "C6-3", "curvilinear"),
    ("Philips Medical Systems", "C8-5", "curvilinear"),
    ("Philips Medical Systems", "L12_3\\54655\\", "linear"),
    ("Philips Medical Systems", "L12-5\\UNUSED\\UNUSED", "linear"),
    ("Philips Medical Systems", "eL18-4", "linear"),
    ("Philips Medical Systems", "CL15-7", "linear"),
    ("Philips Medical Systems", "L15-7io", "linear"),
    ("Philips Medical Systems", "S5_1\\\\", "phased"),
    ("Philips Medical Systems", "X5-1", "phased"),
    ("Philips Medical Systems", "C10_4ec\\54690\\", "endocavity"),
    ("Philips Medical Systems", "C8_4v\\\\", "endocavity"),
    ("Philips Medical Systems", "V6_2\\54670\\", "volume"),
    ("Philips Medical Systems", "C9-3io", "intraoperative"),
    ("Philips Medical Systems", "L10-4lap", "intraoperative"),
    ("Philips Medical Systems", "X7_2t\\54627\\", "endoluminal"),
    ("Philips Medical Systems", "D2cw", "pencil"),
    ("GE Healthcare", "C1-6\\575\\836357531", "curvilinear"),
    ("GE Healthcare", "C1-6-D", "curvilinear"),
    ("GE MEDICAL SYSTEMS", "C1-5-RS", "curvilinear"),
    ("GE MEDICAL SYSTEMS", "4C", "curvilinear"),
    ("GE MEDICAL SYSTEMS", "8C-RS", "curvilinear"),
    ("GE Healthcare", "ML6-15-D", "linear"),
    ("GE MEDICAL SYSTEMS", "L4-12t-RS", "linear"),
    ("GE MEDICAL SYSTEMS", "L6-12-RS", "linear"),
    ("GE MEDICAL SYSTEMS", "11L-D", "linear"),
    ("GE MEDICAL SYSTEMS", "3Sc-RS", "phased"),
    ("GE Healthcare", "M5S-D", "phased"),
    ("GE Healthcare", "IC5-9-D", "endocavity"),
    ("GE MEDICAL SYSTEMS", "E8C", "endocavity"),
    ("GE MEDICAL SYSTEMS", "RIC5-9A-RS", "endocavity"),
    ("GE MEDICAL SYSTEMS", "RAB2-6-RS", "volume"),
    ("SIEMENS", "6C1 HD", "curvilinear"),
    ("SIEMENS", "18L6 HD", "linear"),
    ("SIEMENS", "9L4", "linear"),
    ("TOSHIBA_MEC_US", "PVT-375BT\\\\", "curvilinear"),
    ("CANON_MEC", "PVG-366M\\\\", "curvilinear"),
    ("TOSHIBA_MEC_US", "PLT-805AT\\\\", "linear"),
    ("TOSHIBA_MEC_US", "PLT-1204BT\\\\", "linear"),
    ("TOSHIBA_MEC_US", "PST-25BT\\\\", "phased"),
    ("TOSHIBA_MEC_US", "PVT-781VT\\\\", "endocavity"),
    ("SAMSUNG MEDISON CO., LTD.", "CA1-7S", "curvilinear"),
    ("SAMSUNG MEDISON CO., LTD.", "LA2-9A", "linear"),
    ("SAMSUNG MEDISON CO., LTD.", "L3-12A", "linear"),
    ("SAMSUNG MEDISON CO., LTD.", "CV1-8A", "volume"),
    ("SAMSUNG MEDISON CO., LTD.", "V5-9", "endocavity"),
    ("ESAOTE", "AC2541", "curvilinear"),
    ("ESAOTE", "LA523", "linear"),
    ("ESAOTE", "SL1543", "linear"),
    ("MINDRAY", "C5-2", "curvilinear"),
    ("MINDRAY", "SC5-1U", "curvilinear"),
    ("MINDRAY", "3C5A", "curvilinear"),
    ("MINDRAY", "L14-6Ns", "linear"),
    ("MINDRAY", "7L4A", "linear"),
    ("MINDRAY", "SP5-1N", "phased"),
    ("MINDRAY", "V11-3", "endocavity"),
    ("MINDRAY", "P8-2Ts", "endoluminal"),
    ("SonoSite, Inc.", "C60", "curvilinear"),
    ("SuperSonic Imagine SA", "SC6-1", "curvilinear"),
    ("SuperSonic Imagine SA", "SL10-2", "linear"),
    ("SuperSonic Imagine SA", "SL18-5", "linear"),
    ("Verasonics", "C5-2v", "curvilinear"),
    ("Verasonics", "L12-3v", "linear"),
    ("Verasonics", "P4-2v", "phased"),
    ("Clarius", "C3 HD3", "curvilinear"),
    ("Clarius", "L20 HD3", "linear"),
    ("Clarius", "EC7 HD3", "endocavity"),
    ("Clarius", "PAL HD3", "several"),
    ("B-K Medical", "8804", "linear"),
    ("B-K Medical", "8820e", "curvilinear"),
    ("B-K Medical", "1850", "endocavity"),
    ("B-K Medical", "T7P2m", "endoluminal"),
    ("Philips Medical Systems", "BP10-5ec", "endocavity"),
    ("ESAOTE", "SP2430", "phased"),
    ("SAMSUNG MEDISON CO., LTD.", "miniER7", "endocavity"),
    ("Ultrasonix", "SA4-2/24", "phased"),
    ("Ultrasonix", "BPC8-4/10", "endocavity"),
    ("Ultrasonix", "4DEC9-5/10", "endocavity"),
    ("SonoScape", "C1-6A", "curvilinear"),
    ("Clarius Mobile Health", "EC HD3", "endocavity"),
    ("Clarius Mobile Health", "MC HD3", "curvilinear"),
    ("Ultrasonix", "C5-2/60", "curvilinear"),
    ("Ultrasonix", "L14-5/38", "linear"),
]
# Rows that only their own names can have, by no pattern of their maker.
BY_NAME_ALONE = {"V5-9", "8804", "8820e", "1850", "T7P2m", "miniER7"}


@pytest.mark.parametrize(("manufacturer", "data", "shape"), FACTS)
def test_published_probes_have_their_shape(manufacturer, data, shape):
    assert shape_of_probe(ProbeTags(manufacturer, None, data), ProbeSource(), Probes()) == shape
    assert probe_of(ProbeTags(manufacturer, None, data), ProbeSource(), Probes()) == (
        shape if shape.endswith("linear") else None
    )


@pytest.mark.parametrize(
    ("manufacturer", "data", "shape"),
    [
        ("ACUSON", "b6\\6C2-S", "curvilinear"),
        ("ACUSON", "8d\\15L8-S\\", "linear"),
        ("SIEMENS", "14L5 SP", "linear"),
        ("SAMSUNG MEDISON CO., LTD.", "CA1-7A", "curvilinear"),
        ("ESAOTE", "L 4-15", "linear"),
        ("Hitachi Medical", "EUP-C715", "curvilinear"),
        ("ALOKA CO., LTD.", "UST-52105", "phased"),
        ("ALOKA CO., LTD.", "UST-5710-7.5", "linear"),
        ("ALOKA CO., LTD.", "UST-9123", None),  # this class has convex and endovaginal probes
        ("SonoSite, Inc.", "HFL38xp", "linear"),
        ("BK Medical", "6C2", "curvilinear"),
        ("BK Medical", "8848", None),
        ("ZONARE", "L14-5w", "linear"),
        ("Butterfly Network", "Butterfly iQ", "several"),
        ("Philips Medical Systems", "Q5-1", None),
    ],
)
def test_conventions_read_names_as_files_spell_them(manufacturer, data, shape):
    assert shape_of_probe(ProbeTags(manufacturer, None, data), ProbeSource(), Probes()) == shape


def test_the_patterns_alone_read_the_published_probes_and_none_wrongly():
    patterns = Probes(shipped_probes().patterns)
    found = {data: shape_of_probe(ProbeTags(maker, None, data), ProbeSource(), patterns) for maker, data, _ in FACTS}
    assert {data: shape for _, data, shape in FACTS if data not in BY_NAME_ALONE} == {
        data: shape for data, shape in found.items() if data not in BY_NAME_ALONE
    }
    assert {found[data] for data in BY_NAME_ALONE} == {None}


def test_each_row_that_a_pattern_of_its_maker_fits_has_the_pattern_s_shape_but_for_one():
    patterns = shipped_probes().patterns
    named = [row for row in shipped_probes().rows if row.pattern.is_name]
    others = {
        row.pattern.text: (row.shape, shape)
        for row in named
        if (shape := patterns.shape_of(row.maker, row.pattern.text)) not in (None, row.shape)
    }
    assert len(named) > 100 and others == {"X6-1": ("volume", "phased")}  # an exception that a row of its own states


def test_each_row_of_the_shipped_table_names_its_source_and_each_shape_occurs():
    with (files("pipeline.labels") / "probes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["source"] and row["manufacturer"] in MAKERS for row in rows)
    assert {row["shape"] for row in rows} == set(SHAPES)


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ("SC6-1", "curvilinear"),  # a row of one maker
        ("C4-3", "curvilinear"),  # patterns of several makers
        ("SLH15-4", None),  # a pattern of one maker
        ("C10-3v", None),  # endocavity at Philips, curvilinear at Verasonics
        ("P4-2", "phased"),
        ("XYZ-1", None),
    ],
)
def test_without_a_known_maker_a_name_counts_on_which_all_makers_agree(data, shape):
    for manufacturer in (None, "", "Phantom Imaging"):
        assert shape_of_probe(ProbeTags(manufacturer, None, data), ProbeSource(), Probes()) == shape


@pytest.mark.parametrize(
    ("kind", "data", "shape"),
    [
        ("CURVED LINEAR", "C10-4ec", "endocavity"),  # the name tells more than the type
        ("CURVED LINEAR", "L12-5", "curvilinear"),
        ("SECTOR_PHASED", "X7-2t", "endoluminal"),
        ("SECTOR_PHASED", None, "phased"),
        ("SECTOR_MECH", None, "phased"),
        ("ENDOCAV_LINEAR", None, "endocavity"),
        ("IV_PHASED", None, "endoluminal"),
        ("LINEAR", "ENDOCAVITY", "endocavity"),
        ("MECHANICAL LINEAR", None, None),
    ],
)
def test_words_and_names_that_differ(kind, data, shape):
    assert shape_of_probe(ProbeTags("Philips", kind, data), ProbeSource(), Probes()) == shape


def test_a_recipe_takes_any_shapes_as_labels_and_the_paper_s_two_by_default():
    assert Labels().names[-2:] == ("linear", "curvilinear")
    settings = ProbeSource(shapes=("phased", "curvilinear"))
    assert settings.names == ("phased", "curvilinear")
    read = [probe_of(ProbeTags("Philips", None, data), settings, Probes()) for data in ("S5-1", "C5-1", "L12-5")]
    assert read == ["phased", "curvilinear", None]


def test_the_paper_s_two_shapes_are_recorded_as_by_earlier_versions():
    assert set(ProbeSource().model_dump()) == {"kind", "models", "words", "prefixes"}
    assert ProbeSource(shapes=("phased",)).model_dump()["shapes"] == ("phased",)


def test_a_recipe_s_prefixes_read_names_that_no_table_has():
    settings = ProbeSource(prefixes={"QC": "curvilinear"})
    assert probe_of(ProbeTags("Acme", None, "QC5-1"), settings, Probes()) == "curvilinear"
    assert probe_of(ProbeTags("Acme", None, "QC5-1v"), settings, Probes()) is None
    assert probe_of(ProbeTags("Acme", None, "QC5-1"), ProbeSource(), Probes()) is None


def test_a_recipe_s_models_go_before_the_user_s_rows_and_those_before_words_and_the_shipped_table(tmp_path):
    (tmp_path / "mine.csv").write_text(HEADER + "Philips,C5-1,volume\nSamsung,L#-#*,phased\n", encoding="utf-8")
    probes = probes_for(tmp_path, Labels())
    assert shape_of_probe(ProbeTags("Philips", "CURVED LINEAR", "C5-1"), ProbeSource(), probes) == "volume"
    assert shape_of_probe(ProbeTags("Samsung", None, "L3-12A"), ProbeSource(), probes) == "phased"
    assert shape_of_probe(ProbeTags("Mindray", None, "C5-2"), ProbeSource(), probes) == "curvilinear"
    settings = ProbeSource(models={"c5_1": "linear"})
    assert probe_of(ProbeTags("Philips", "CURVED LINEAR", "C5-1"), settings, probes) == "linear"


def test_rows_without_a_maker_are_for_makers_that_no_table_has(tmp_path):
    (tmp_path / "mine.csv").write_text(HEADER + ",Probe A,linear\n", encoding="utf-8")
    probes = probes_for(tmp_path, Labels())
    read = {
        maker: probe_of(ProbeTags(maker, None, "PROBE  A"), ProbeSource(), probes)
        for maker in (None, "U-Systems", "Philips")
    }
    assert read == {None: "linear", "U-Systems": "linear", "Philips": None}


def test_tables_of_probes_and_of_study_groups_share_a_folder(tmp_path):
    (tmp_path / "groups.csv").write_text("study_description,groups\nUS LIVER,liver\n", encoding="utf-8")
    (tmp_path / "probes.csv").write_bytes(
        "\ufeffName;Shape;Manufacturer;why\nÄ9;? linear;GE;\nQ9;Linear;GE;\n".encode()
    )
    assert read_study_groups(tmp_path, ("liver",)).mapping == {"US LIVER": ("liver",)}
    probes = probes_for(tmp_path, Labels())
    assert [(row.maker, row.pattern.text, row.shape) for row in probes.own.rows] == [("GE", "Q9", "linear")]
    assert (
        probes_for(tmp_path / "groups.csv", Labels()).own
        == probes_for(tmp_path / "absent", Labels()).own
        == ProbeTable()
    )


def test_a_recipe_without_labels_from_probes_reads_no_table_of_them(tmp_path):
    (tmp_path / "probes.csv").write_text(HEADER + "GE,Q9,round\n", encoding="utf-8")
    assert probes_for(tmp_path, Labels(sources=(StudyGroupsSource(),))).own.rows == ()


def test_a_folder_of_probes_alone_has_no_study_groups(tmp_path):
    (tmp_path / "probes.csv").write_text(HEADER, encoding="utf-8")
    with pytest.raises(UserError, match="is a folder without CSV files of study groups"):
        read_study_groups(tmp_path, ("liver",))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("GE,Q9\n", r"mine.csv, line 2: not as many cells as columns"),
        ("GE,Q9,round\n", r"mine.csv, line 2: shape 'round' is none of linear, curvilinear, phased, .*several\.$"),
        ("Simens,Q9,linear\n", r"mine.csv, line 2: manufacturer 'Simens' is none of SonoSite, .*; leave it empty"),
        ("GE,8848,linear\n", r"mine.csv, line 2: name '8848' has no letter\.$"),
        ("GE,L*-*,linear\n", r"mine.csv, line 2: name 'L\*-\*' has \* more than once"),
        (
            "GE,Q9,linear\n\nGE,q 9,phased\n",
            r"mine.csv, line 4: Q9 of GE is phased, but .*mine.csv, line 2: Q9 is linear",
        ),
        (
            "GE,Q#,linear\nGE,Q1*,phased\n",
            r"mine.csv, line 3: Q1\* of GE is phased, but .*mine.csv, line 2: Q# is linear",
        ),
        (",Q9,linear\n,Q9,phased\n", r"mine.csv, line 3: Q9 of another maker is phased, but .*line 2: Q9 is linear"),
    ],
)
def test_an_error_names_file_and_line_the_word_and_what_is_allowed(tmp_path, rows, message):
    (tmp_path / "mine.csv").write_text(HEADER + rows, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        probes_for(tmp_path, Labels())


def test_a_missing_column_of_a_table_of_probes_is_named(tmp_path):
    (tmp_path / "mine.csv").write_text("maker,name,shape\nGE,Q9,linear\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"mine\.csv, line 1: no column 'manufacturer'; the columns are manufacturer, name"
    ):
        probes_for(tmp_path, Labels())


def test_rows_of_two_files_that_contradict_each_other_are_refused(tmp_path):
    for name, shape in (("a.csv", "linear"), ("b.csv", "phased")):
        (tmp_path / name).write_text(HEADER + f"GE,Q9,{shape}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"b\.csv, line 2: .* but .*a\.csv, line 2: "):
        probes_for(tmp_path, Labels())


def test_a_name_goes_before_a_pattern_and_equal_rows_may_repeat(tmp_path):
    (tmp_path / "mine.csv").write_text(HEADER + "GE,Q#,linear\nGE,Q9,phased\nGE,Q9,phased\n", encoding="utf-8")
    table = read_probe_tables([tmp_path / "mine.csv"])
    assert [table.shape_of("GE", name) for name in ("Q8", "Q9", "Q")] == ["linear", "phased", None]


def test_the_digest_follows_the_meaning_of_the_rows(tmp_path):
    texts = ["GE,Q9,linear\nGE,Q8,phased\n", "ge,q 8,Phased\nGE,Q9,linear\n", "GE,Q9,linear\n"]
    digests = []
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.csv").write_text(HEADER + text, encoding="utf-8")
        digests.append(read_probe_tables([tmp_path / f"{number}.csv"]).digest)
    assert digests[0] == digests[1] != digests[2]
