"""The clinic's patients and their studies: who is examined, under which description, with which views and tags.

Belongs here: protocols, their frequencies, the plan of every archive image. Not here: defective files, pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.random import Generator

from pipeline.phantom.dicom import Encoding, Header, Person, Study, fixed_uid, instance, write
from pipeline.phantom.scanner import AIXPLORER_LIKE, CURVILINEAR, LINEAR_HIGH, LINEAR_LOW, Probe, Setup, picture
from pipeline.phantom.views import VIEWS, with_needle


@dataclass(frozen=True)
class Protocol:
    """A study description, how often it is chosen (relative), and the views it leads to."""

    description: str
    weight: float
    views: tuple[str, ...]


PROTOCOLS: tuple[Protocol, ...] = (
    Protocol("US BIOPSY LIVER NONFOCAL", 10, ("liver", "liver", "liver", "morison")),
    Protocol("US BIOPSY LIVER FOCAL", 8, ("liver_lesion", "liver_lesion", "liver")),
    Protocol("US LYMPH NODE BIOPSY", 7, ("lymph_node",)),
    Protocol("US BIOPSY KIDNEY NONFOCAL (EITHER SIDE)", 8, ("kidney_view", "kidney_view", "morison")),
    Protocol("US PARACENTESIS THERAPEUTIC", 8, ("ascites",)),
    Protocol("US BIOPSY TRANSPLANTED KIDNEY", 6, ("transplant",)),
    Protocol("US PARACENTESIS DIAGNOSTIC AND THERAPEUTIC", 5, ("ascites",)),
    Protocol("US THYROID BIOPSY", 9, ("thyroid_nodule", "thyroid_nodule", "thyroid")),
    Protocol("US PARACENTESIS DIAGNOSTIC", 3, ("ascites",)),
    Protocol("US THORACENTESIS DIAGNOSTIC AND THERAPEUTIC", 5, ("effusion", "effusion", "aerated_lung")),
    Protocol("US THYROID ASPIRATION/FNA", 8, ("thyroid_nodule", "thyroid_nodule", "thyroid")),
    Protocol("US DRAINAGE INTERVENTION NOT OTHERWISE SPECIFIED", 2, ("abscess",)),
    Protocol("US DRAINAGE ABDOMEN", 3, ("collection",)),
    Protocol("US DRAINAGE GALLBLADDER (CHOLECYSTOSTOMY)", 2, ("cholecystostomy",)),
    Protocol("US THORACENTESIS THERAPEUTIC (RIGHT)", 2, ("effusion",)),
    Protocol("US THORACENTESIS THERAPEUTIC (LEFT)", 2, ("effusion",)),
    Protocol("US BIOPSY MESENTERY", 0.7, ("collection", "soft_tissue_mass")),
    Protocol("US NECK SOFT TISSUE BIOPSY", 2, ("lymph_node", "soft_tissue_mass")),
    Protocol("US DRAINAGE CATHETER PLACEMENT", 1.5, ("abscess",)),
    Protocol("US DRAINAGE PELVIS", 1.5, ("collection",)),
    Protocol("US SOFT TISSUE BIOPSY", 3, ("soft_tissue_mass",)),
    Protocol("US BIOPSY KIDNEY NONFOCAL (LEFT)", 1.5, ("kidney_view",)),
    Protocol("US CHEST TUBE PLACEMENT (RIGHT)", 1, ("aerated_lung", "effusion")),
    Protocol("US BIOPSY NOT OTHERWISE SPECIFIED", 1, ("soft_tissue_mass", "abscess")),
    Protocol("US ABDOMINAL PELVIC BIOPSY NOT OTHERWISE SPECIFIED", 1, ("collection", "soft_tissue_mass")),
    Protocol("US CHEST TUBE PLACEMENT (LEFT)", 1, ("aerated_lung", "effusion")),
    Protocol("CT BIOPSY LIVER FOCAL", 0.7, ("liver_lesion",)),
    Protocol("US BIOPSY KIDNEY FOCAL (LEFT)", 0.5, ("kidney_view",)),
    Protocol("US ASPIRATION ABDOMINAL COLLECTION", 1, ("collection",)),
    Protocol("CT LYMPH NODE BIOPSY", 0.5, ("lymph_node",)),
    Protocol("US DRAINAGE LIVER", 0.7, ("liver_lesion",)),
    Protocol("US BIOPSY RETROPERITONEUM", 0.5, ("collection", "kidney_view")),
    Protocol("US LYMPH NODE ASPIRATION/FNA", 0.7, ("lymph_node",)),
    Protocol("US SOFT TISSUE ASPIRATION", 0.7, ("abscess",)),
    Protocol("US ASPIRATION PELVIS", 0.5, ("collection",)),
    Protocol("US THORACENTESIS DIAGNOSTIC (RIGHT)", 0.7, ("effusion",)),
    Protocol("US THORACENTESIS DIAGNOSTIC (LEFT)", 0.7, ("effusion",)),
    Protocol("US DRAINAGE KIDNEY/PARARENAL (RIGHT)", 0.4, ("kidney_view",)),
    Protocol("US HEAD/NECK INTERVENTION NOT OTHERWISE SPECIFIED", 0.5, ("soft_tissue_mass", "lymph_node")),
    Protocol("US BIOPSY KIDNEY FOCAL (RIGHT)", 0.5, ("kidney_view", "morison")),
    Protocol("CT ABDOMINAL PELVIC BIOPSY NOT OTHERWISE SPECIFIED", 0.3, ("collection",)),
    Protocol("US DRAINAGE KIDNEY/PARARENAL (LEFT)", 0.4, ("kidney_view",)),
    Protocol("IR PARACENTESIS (THERAPEUTIC)", 0.5, ("ascites",)),
    Protocol("US PSEUDOANEURYSM THROMBIN INJECTION", 0.5, ("pseudoaneurysm",)),
)
"""Table A1, most frequent first as far as the paper prints it; the weights are ours."""

UNMAPPED: tuple[Protocol, ...] = (
    Protocol("US SHOULDER", 1, ("shoulder",)),
    Protocol("US BIOPSY LIVR NONFOCAL", 1, ("liver",)),
    Protocol("", 1, ("thyroid",)),
)
"""Descriptions that Table A1 does not know: of no group, misspelt, absent."""

SHALLOW = {"thyroid", "thyroid_nodule", "lymph_node", "soft_tissue_mass", "abscess", "pseudoaneurysm", "shoulder"}
ENCODINGS = (
    *(Encoding.EXPLICIT,) * 8,
    *(Encoding.IMPLICIT,) * 3,
    *(Encoding.RLE,) * 3,
    *(Encoding.JPEG,) * 6,
    Encoding.RGB,
    Encoding.PALETTE,
)
UNKNOWN_PROBE = "SECTOR_PHASED", ("XP5-1", "UNUSED", "UNUSED")
CINE_FRAMES = 6
BEAMS_PER_FRAME = 2


@dataclass(frozen=True)
class ImagePlan:
    """One instance to be written: where, of whom, what it shows and what its tags say.

    `key` seeds the image's own random draws, `body` and `exam` those that its patient and its study share.
    """

    path: str
    header: Header
    view: str
    probe: Probe
    needle: bool
    frames: int
    encoding: Encoding
    body: tuple[int, ...]
    exam: tuple[int, ...]
    key: tuple[int, ...]


def clinic(patients: int, seed: int) -> tuple[ImagePlan, ...]:
    """Every image of a clinic's archive: one study per patient and a second for every seventh, 6 to 11 images each."""
    rng = np.random.default_rng([seed, 1])
    owners = [*range(patients), *range(0, patients, 7)]
    protocols = [*UNMAPPED, *_drawn_protocols(len(owners) - len(UNMAPPED), rng)]
    order = rng.permutation(len(owners))
    return tuple(
        plan
        for number, owner in enumerate(owners)
        for plan in _study(owner, number, protocols[int(order[number])], seed)
    )


def write_image(archive: Path, plan: ImagePlan) -> None:
    """Make the picture of a plan and write it as DICOM under `archive`."""
    scene = VIEWS[plan.view](np.random.default_rng(plan.body), np.random.default_rng((*plan.key, 0)))
    rng = np.random.default_rng((*plan.key, 1))
    if plan.needle:
        scene = with_needle(scene, rng, deep=plan.view not in SHALLOW)
    tuning = AIXPLORER_LIKE.tuned(np.random.default_rng(plan.exam))
    setup = Setup(AIXPLORER_LIKE, tuning, plan.probe, float(rng.choice(plan.probe.depths_mm)))
    grain = (*plan.key, 2)
    frames = [
        picture(scene, setup, np.random.default_rng(grain), BEAMS_PER_FRAME * frame) for frame in range(plan.frames)
    ]
    write(instance(plan.header, frames, AIXPLORER_LIKE, plan.encoding), archive / plan.path)


def _drawn_protocols(count: int, rng: Generator) -> list[Protocol]:
    """`count` protocols at their frequencies (systematic sampling: each comes up as often as its weight says)."""
    weights = np.array([protocol.weight for protocol in PROTOCOLS])
    marks = (np.arange(count) + rng.uniform()) / count
    return [PROTOCOLS[i] for i in np.searchsorted(np.cumsum(weights) / weights.sum(), marks)]


def _study(owner: int, number: int, protocol: Protocol, seed: int) -> Iterator[ImagePlan]:
    """The images of one study; whether its tags name the probe is the study's habit."""
    rng = np.random.default_rng([seed, 2, number])
    person, study = _person(owner, seed), _study_tags(number, protocol, seed)
    shallow = (LINEAR_LOW, LINEAR_HIGH)[int(rng.integers(2))]
    has_data, has_type = rng.random() > 0.15, rng.random() < 0.75
    for image in range(int(rng.integers(6, 12))):
        view = protocol.views[int(rng.integers(len(protocol.views)))]
        probe = shallow if view in SHALLOW else CURVILINEAR
        kind, data = (probe.kind, (probe.model, "UNUSED", "UNUSED")) if rng.random() > 0.02 else UNKNOWN_PROBE
        header = Header(
            person,
            study,
            instance_uid=fixed_uid(seed, "instance", number, image),
            number=image + 1,
            transducer_type=kind if has_type or not has_data else None,
            transducer_data=data if has_data else None,
            regions=bool(rng.random() < 0.7),
        )
        yield ImagePlan(
            path=f"{person.patient}/US{number:04d}/IM{image + 1:04d}{'.dcm' if owner % 4 else ''}",
            header=header,
            view=view,
            probe=probe,
            needle=bool(rng.random() < 0.3),
            frames=CINE_FRAMES if rng.random() < 0.02 else 1,
            encoding=ENCODINGS[int(rng.integers(len(ENCODINGS)))],
            body=(seed, 3, owner),
            exam=(seed, 4, number),
            key=(seed, 5, number, image),
        )


def _person(owner: int, seed: int) -> Person:
    rng = np.random.default_rng([seed, 6, owner])
    return Person(f"P{owner:04d}", str(rng.choice(("F", "M"))), int(rng.integers(1935, 2000)))


def _study_tags(number: int, protocol: Protocol, seed: int) -> Study:
    """A study's tags, on a day within the paper's time of collection (section 4.1)."""
    rng = np.random.default_rng([seed, 7, number])
    day = date(2018, 9, 1) + timedelta(days=int(rng.integers(0, 430)))
    time = f"{int(rng.integers(8, 18)):02d}{int(rng.integers(0, 60)):02d}00"
    uids = fixed_uid(seed, "study", number), fixed_uid(seed, "series", number)
    return Study(*uids, f"{day:%Y%m%d}", time, protocol.description or None)
