"""The label report on ten patients, whose numbers are worked out by hand, and on pools that hold nearly nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats.contingency import association as scipy_association

from pipeline.cohort.label_report import association, bound_to_machines, cramers_v, label_report
from pipeline.cohort.label_report_text import in_words, label_pairs
from pipeline.recipe.labels import BinsSource, Labels, ProbeSource, StudyGroupsSource, ValuesSource
from pipeline.tables import LABEL_REPORT

GROUPS = Labels(sources=(StudyGroupsSource(groups=("liver", "nodule")), ProbeSource()))
HEIGHT = 100


def tables(
    settings: Labels, rows: Sequence[dict[str, Any]]
) -> tuple[pa.Table, pa.Table, pa.Table, list[bytes], Labels, int]:
    """Pool, index, images and folders of images that `rows` describe; what a row lacks is null."""
    texts = ("patient", "study", "series", "manufacturer", "model", "transducer_type", "transducer_data")
    names = [f"{number:04d}" for number in range(len(rows))]

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([row.get(name) for row in rows], kind)

    index = pa.table({"sop_instance": pa.array(names, pa.string()), **{n: column(n, pa.string()) for n in texts}})
    frames = pa.array([0] * len(rows), pa.int64())
    images = pa.table(
        {
            "sop_instance": index["sop_instance"],
            "frame": frames,
            "row_spacing_mm": column("spacing", pa.float64()),
        }
    )
    pool = pa.table(
        {
            "sop_instance": index["sop_instance"],
            "frame": frames,
            "patient": index["patient"],
            "split": pa.array([row.get("split", "train") for row in rows], pa.string()),
            **{name: column(name, pa.int8()) for name in settings.names},
        }
    )
    return pool, index, images, [row.get("folder", b"A") for row in rows], settings, HEIGHT


def ten_patients() -> list[dict[str, Any]]:
    """Patients 0 to 4 have `liver`, only 0 to 3 are from the folder of Anna. Patient 0 has 20 images."""
    rows = [
        {
            "patient": f"p{number}",
            "split": "val" if number in (4, 9) else "train",
            "liver": int(number < 5),
            "nodule": 0,
            "folder": b"Anna" if number < 4 else b"Berta",
            "manufacturer": "PHILIPS" if number < 5 else "GE Healthcare",
            "model": "EPIQ 7" if number < 5 else "LOGIQ",
            "transducer_data": "C5-1" if number % 2 else "L12-3",
            "linear": 1 - number % 2,
            "curvilinear": number % 2,
            "spacing": 1.0 + number // 5 if number != 9 else None,
        }
        for number in range(10)
    ]
    return rows[:1] * 20 + rows[1:]


def test_ten_patients_by_hand() -> None:
    rows = label_report(*tables(GROUPS, ten_patients()))
    assert rows.schema.names == LABEL_REPORT.schema.names
    liver, nodule, linear, _ = rows.to_pylist()
    counts = {"images": 24, "patients": 5, "patients_without": 5, "train_patients": 4, "val_patients": 1}
    assert {name: liver[name] for name in counts} == counts
    # Folders: with 4 and 1, without 0 and 5 of n = 10. X² = 10 (4·5 - 1·0)² / (5·5·4·6) = 6.667, X²/n = 0.6667;
    # V² = (0.6667 - 1/9) / (2 - 1/9 - 1) = 0.5556 / 0.8889 = 0.625.
    assert liver["folder_v"] == pytest.approx(0.625**0.5)
    # Shuffled, 4 of Anna's 4 or none have it in 2·6 of C(10, 5) = 252 cases, 4.8 %: the 99 % quantile is that V.
    assert liver["folder_chance"] == pytest.approx(0.625**0.5)
    assert (liver["folder"], liver["folder_share"], liver["folder_share_without"]) == (2, 0.8, 0.0)
    # Makers: with 5 and 0, without 0 and 5: V = 1. Patients without the label are at none of its machines.
    assert liver["maker_v"] == pytest.approx(1) and liver["strongest"] in {"maker", "machine"}
    assert (liver["machine"], liver["machine_share"], liver["machine_share_without"]) == ("Philips EPIQ 7", 1.0, 0.0)
    assert (liver["folders"], liver["machines"]) == (2, 1)
    # Median depths: five times 100 mm, four times 200 mm, one unknown: no quarter splits equal values.
    assert liver["depth_v"] is not None and liver["depth_v"] > 0.9
    assert liver["flags"].split(", ")[:2] == ["too rare", "one machine"]
    assert nodule["flags"] == "absent" and nodule["strongest"] is None and nodule["folder"] is None
    assert linear["probe_v"] is None  # it follows from the probe by definition
    assert liver["probe_v"] == 0  # 3 of 5 and 2 of 5: X²/n = 0.04 < 1/9


def test_the_folder_is_numbered_by_its_patients_and_never_named() -> None:
    pool = tables(GROUPS, ten_patients())
    rows = label_report(*pool)
    text = in_words(rows, label_pairs(pool[0], GROUPS))
    assert "Anna" not in f"{rows.to_pydict()}{text}" and "Berta" not in f"{rows.to_pydict()}{text}"
    assert "Folder 2: 80% of the patients with it and 0% of those without it." in text


def test_labels_of_one_machine_are_named_and_others_are_not() -> None:
    rows = ten_patients()
    found = bound_to_machines(label_report(*tables(GROUPS, rows)))
    assert set(found) == {"liver"} and found["liver"][0] == "one machine"
    for row in rows:
        row.update(manufacturer=None, model="A", folder=b"A")
    assert bound_to_machines(label_report(*tables(GROUPS, rows))) == {}


def test_pseudonyms_that_share_a_study_are_one_patient() -> None:
    rows = ten_patients()
    for row in rows:
        row["study"] = "one" if row["patient"] in ("p0", "p1") else row["patient"]
    liver = label_report(*tables(GROUPS, rows)).to_pylist()[0]
    assert liver["patients"] == 4


@pytest.mark.parametrize("k", [2, 3, 7])
def test_v_is_scipys_after_bergsmas_correction(k: int) -> None:
    rng = np.random.default_rng(k)
    for _ in range(20):
        totals = rng.integers(1, 30, k)
        positive = np.clip(rng.binomial(totals, 0.4), 0, totals)
        positive[0], positive[1] = totals[0], 0
        n = totals.sum()
        phi2 = scipy_association(np.array([positive, totals - positive]), method="cramer") ** 2
        corrected = max(0, phi2 - (k - 1) / (n - 1))
        rows, columns = 2 - 1 / (n - 1), k - (k - 1) ** 2 / (n - 1)
        assert cramers_v(positive, totals) == pytest.approx((corrected / min(rows - 1, columns - 1)) ** 0.5)


def test_without_an_association_v_is_within_chance_and_a_planted_one_is_not() -> None:
    rng = np.random.default_rng(3)
    label, factor = (rng.random(200) < 0.1).astype(np.int64), rng.integers(0, 6, 200)
    independent = association(label, factor)
    factor[label == 1] = 6
    planted = association(label, factor)
    assert independent is not None and planted is not None
    assert independent.v <= independent.chance < 0.5 and planted.v == pytest.approx(1, abs=0.05)
    assert planted.chance < 0.5


def test_a_factor_with_a_value_for_each_patient_or_one_for_all_has_no_v() -> None:
    label = np.array([0, 1, 0, 1])
    assert association(label, np.arange(4)) is None and association(label, np.zeros(4, np.int64)) is None
    assert association(np.ones(4, np.int64), np.array([0, 0, 1, 1])) is None
    assert association(np.zeros(0, np.int64), np.zeros(0, np.int64)) is None


BODY = Labels(sources=(ValuesSource(field="BodyPartExamined", labels={"chest": ("CHEST",)}),))
BINS = Labels(sources=(BinsSource(field="SliceThickness", edges=(2.0,), labels=("thin", "thick")),))
ONE = {"patient": "p", "chest": 1, "thin": 1, "thick": 0}


@pytest.mark.parametrize("settings", [BODY, BINS, GROUPS])
@pytest.mark.parametrize("rows", [[], [ONE], [ONE] * 3, [{"patient": "p"}, {"patient": "q"}]])
def test_pools_without_anything_to_compare_have_a_report(settings: Labels, rows: list[dict[str, Any]]) -> None:
    pool = tables(settings, rows)
    report = label_report(*pool)
    assert report["label"].to_pylist() == list(settings.names)
    for row in report.to_pylist():
        assert row["strongest"] is None and row["flags"] in {"absent", "too rare"}
        assert (row["flags"] == "absent") == (row["patients"] == 0)
    text = in_words(report, label_pairs(pool[0], settings))
    assert all(name in text for name in settings.names)


def test_pairs_that_are_always_or_never_together_are_named() -> None:
    settings = Labels(sources=(StudyGroupsSource(groups=("a", "b", "c", "d", "e")),))
    rows = [
        {"patient": f"p{n}", "a": n % 2, "b": n % 2, "c": int(n % 4 == 1), "d": 1 - n % 2, "e": int(n in (2, 3))}
        for n in range(40)
    ]
    pairs = label_pairs(tables(settings, rows)[0], settings)
    assert pairs.always == [("a", "b")]
    assert pairs.implied == [("c", "a", 10), ("c", "b", 10)]
    # 20 of 40 patients each: 10 expected; c and d 5; e has two patients, so that none together would say nothing.
    assert pairs.never == [("a", "d"), ("b", "d"), ("c", "d")]


def test_labels_that_exclude_each_other_by_definition_are_no_finding() -> None:
    pairs = label_pairs(tables(GROUPS, ten_patients() * 3)[0], GROUPS)
    assert pairs.never == []
