"""The ground truth of the phantom's archive: tables beside it, never in it."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.phantom.dicom import photometric, sop_class, transfer_syntax
from pipeline.phantom.scanner import AIXPLORER_LIKE
from pipeline.phantom.studies import ImagePlan
from pipeline.phantom.tag_noise import Noise

RECORDS = "records.csv"
REJECTIONS = "rejections.csv"

_SHAPES = {"LINEAR": "linear", "CURVED LINEAR": "curvilinear"}


@dataclass(frozen=True)
class Record:
    """A file of the archive that must become a record: its header, its true content, and its content by tags.

    `path` is relative to the archive; a zip file counts as a folder of its members. Absent header fields are empty.
    `true_groups` and `tag_groups` are comma-separated: the examined groups, and those of the description in Table A1,
    empty if the table lacks it. Probes are linear or curvilinear, sides left or right, empty if the tags do not state
    them. `noise` is a comma-separated list of all errors in the tags (`tag_noise.Noise`).
    """

    path: str
    patient_id: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class: str
    transfer_syntax: str
    photometric: str
    rows: int
    columns: int
    frames: int
    manufacturer: str
    model: str
    transducer_type: str
    transducer_data: str
    study_description: str
    true_description: str
    view: str
    true_groups: str
    tag_groups: str
    true_probe: str
    tag_probe: str
    true_side: str
    tag_side: str
    noise: str


@dataclass(frozen=True)
class Rejection:
    """A file of the archive, or one frame of it, that must be rejected, and the reason code; `path` as of a record."""

    path: str
    level: str
    reason: str
    frame: int | None = None


def record_of(plan: ImagePlan) -> Record:
    """The record of a good image."""
    header, scanner = plan.header, AIXPLORER_LIKE
    return Record(
        path=plan.path,
        patient_id=header.person.patient,
        study_uid=header.study.uid,
        series_uid=header.study.series_uid,
        sop_instance_uid=header.instance_uid,
        sop_class=str(sop_class(plan.frames)),
        transfer_syntax=str(transfer_syntax(plan.encoding)),
        photometric=photometric(plan.encoding),
        rows=scanner.screen.height,
        columns=scanner.screen.width,
        frames=plan.frames,
        manufacturer=scanner.manufacturer,
        model=scanner.model,
        transducer_type=header.transducer_type or "",
        transducer_data="\\".join(header.transducer_data or ()),
        study_description=header.study.description or "",
        view=plan.view,
        noise=",".join(plan.noise),
        **_truth_and_tags(plan),
    )


def _truth_and_tags(plan: ImagePlan) -> dict[str, str]:
    """Truth and tags of an image, from the plan and not by reading the file."""
    protocol, named = plan.examination.protocol, plan.examination.named
    shape = _SHAPES[plan.probe.kind]
    return {
        "true_description": protocol.description,
        "true_groups": ",".join(protocol.groups),
        "tag_groups": ",".join(named.mapped_groups) if named else "",
        "true_probe": shape,
        "tag_probe": "" if {Noise.MISSING_PROBE, Noise.FOREIGN_PROBE} & set(plan.noise) else shape,
        "true_side": protocol.side,
        "tag_side": named.side if named else "",
    }


def write_ground_truth(folder: Path, records: Iterable[Record], rejections: Iterable[Rejection]) -> None:
    """Write both tables into `folder`, which is made."""
    folder.mkdir(parents=True)
    _write(folder / RECORDS, Record, [asdict(record) for record in records])
    _write(folder / REJECTIONS, Rejection, [asdict(rejection) for rejection in rejections])


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `write_ground_truth` wrote, as texts. Raises `UserError` if there is none."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: only a phantom clinic has a ground truth (`make phantom`).")
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, row: type[Record] | type[Rejection], rows: Sequence[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
