"""Scores of names of probes, on real names if they are at hand."""

import os
from pathlib import Path

import pytest

from benchmarks.probes import figures, score
from pipeline.labels.probe_tables import Probes, shipped_probes


def row(manufacturer: str, data: str, shape: str) -> dict[str, str]:
    return {"Manufacturer": manufacturer, "TransducerData": data, "shape": shape}


def test_each_name_is_read_wrong_missed_known_as_another_or_in_the_worklist():
    rows = [
        row("Philips", "C5-1", "curvilinear"),
        row("Philips", "C5-1", "linear"),
        row("Philips", "L12-5", "neither"),
        row("Philips", "S5-1", "linear"),
        row("Philips", "S5-1", "neither"),
        row("Philips", "Q5-1", "neither"),
    ]
    assert score(rows, Probes()) == {"read": 1, "wrong": 2, "missed": 1, "other": 1, "worklist": 1}
    assert score(rows[:1], Probes(shipped_probes().patterns)) == {"read": 1}


def test_real_names_are_read_and_none_wrongly():
    file = Path(os.environ.get("SONOTAG_SHARED_DATA", "")) / "real_tags" / "probes.csv"
    if not file.is_file():
        pytest.skip("no real names: SONOTAG_SHARED_DATA names their folder")
    found = {figure.what: figure.value for figure in figures(file)}
    for table in ("shipped table", "its patterns alone"):
        read, wanted = map(int, found[f"{table}: linear and curvilinear read"].split(" of "))
        assert found[f"{table}: wrong"].startswith("0 of ")
        assert read >= (0.95 if table == "shipped table" else 0.9) * wanted
