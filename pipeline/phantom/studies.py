"""Plan every image of the clinic's archive: its patient, study, probe, view and tags."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.random import Generator

from pipeline.phantom.dicom import Encoding, Header, Person, Study, fixed_uid, instance, write
from pipeline.phantom.scanner import AIXPLORER_LIKE, CURVILINEAR, LINEAR_HIGH, LINEAR_LOW, Probe, Setup, View, picture
from pipeline.phantom.settings import Amount, Phantom, TagNoise
from pipeline.phantom.tag_noise import Examination, Noise, examinations, hits
from pipeline.phantom.views import VIEWS, with_needle

SHALLOW = {"thyroid", "thyroid_nodule", "lymph_node", "soft_tissue_mass", "abscess", "pseudoaneurysm", "shoulder"}
OTHER_PROBE = {
    **{"ascites": 0.3, "effusion": 0.3, "aerated_lung": 0.5, "collection": 0.15, "transplant": 0.2},
    **{"liver": 0.1, "liver_lesion": 0.05, "kidney_view": 0.05, "morison": 0.05, "cholecystostomy": 0.05},
    **{"abscess": 0.1, "soft_tissue_mass": 0.1, "pseudoaneurysm": 0.1, "lymph_node": 0.03, "thyroid": 0.02},
}
"""Share of a view's images that are taken with the unusual probe: a linear one on a deep view shows the wall at the
needle's entry; a curvilinear one reaches deep into a limb."""
ENCODINGS = (
    *(Encoding.EXPLICIT,) * 8,
    *(Encoding.IMPLICIT,) * 3,
    *(Encoding.RLE,) * 3,
    *(Encoding.JPEG,) * 6,
    Encoding.RGB,
    Encoding.PALETTE,
)
FOREIGN_PROBE = "SECTOR_PHASED", ("XP5-1", "UNUSED", "UNUSED")
CINE_FRAMES = 6
BEAMS_PER_FRAME = 2
STUDIES_AGAIN = 0.2  # second and further studies, per patient


@dataclass(frozen=True)
class ImagePlan:
    """One instance to be written: path, tags, and content.

    `examination` is its study's; `foreign_probe`: its tags state a probe that was not used. `key` seeds the image's own
    random numbers, `body` and `exam` those of its patient and its study.
    """

    path: str
    header: Header
    examination: Examination
    foreign_probe: bool
    view: str
    probe: Probe
    needle: bool
    frames: int
    encoding: Encoding
    body: tuple[int, ...]
    exam: tuple[int, ...]
    key: tuple[int, ...]

    @property
    def noise(self) -> tuple[Noise, ...]:
        """All errors in the image's tags."""
        tags = self.header.transducer_type, self.header.transducer_data
        found = (
            self.examination.noise,
            Noise.MISSING_PROBE if tags == (None, None) else None,
            Noise.FOREIGN_PROBE if self.foreign_probe else None,
        )
        return tuple(noise for noise in found if noise)


@dataclass(frozen=True)
class _StudyPlan:
    """One study to be planned: its number in the clinic, its patient, its number of images."""

    number: int
    owner: int
    images: int
    examination: Examination
    names_no_probe: bool


def clinic(settings: Phantom, seed: int) -> tuple[ImagePlan, ...]:
    """Every good image of a clinic's archive, of the size and with the tag noise of `settings`."""
    rng = np.random.default_rng([seed, 1])
    studies = _studies(settings.archive, settings.tag_noise, rng)
    plans = [plan for study in studies for plan in _images_of(study, seed)]
    for index in rng.permutation(len(plans))[: hits(settings.tag_noise.foreign_probe, len(plans))]:
        plans[index] = _with_foreign_probe(plans[index])
    return tuple(plans)


def write_image(archive: Path, plan: ImagePlan) -> None:
    """Make the picture of a plan and write it as DICOM below `archive`."""
    write(instance(plan.header, frames_of(plan), AIXPLORER_LIKE, plan.encoding), archive / plan.path)


def frames_of(plan: ImagePlan) -> list[View]:
    """The picture of a plan, frame by frame."""
    scene = VIEWS[plan.view](np.random.default_rng(plan.body), np.random.default_rng((*plan.key, 0)))
    rng = np.random.default_rng((*plan.key, 1))
    if plan.needle:
        scene = with_needle(scene, rng, deep=plan.probe.radius_mm > 0)
    tuning = AIXPLORER_LIKE.random_tuning(np.random.default_rng(plan.exam))
    setup = Setup(AIXPLORER_LIKE, tuning, plan.probe, float(rng.choice(plan.probe.depths_mm)))
    grain = (*plan.key, 2)
    return [
        picture(scene, setup, np.random.default_rng(grain), BEAMS_PER_FRAME * frame) for frame in range(plan.frames)
    ]


def _studies(size: Amount, noise: TagNoise, rng: Generator) -> list[_StudyPlan]:
    """The studies of all patients: one each, and the share `STUDIES_AGAIN` more of random patients."""
    again = min(round(STUDIES_AGAIN * size.patients), size.images - size.patients)
    owners = [*range(size.patients), *rng.integers(size.patients, size=again).tolist()]
    counts = _distribute(size.images, len(owners), rng)
    unnamed = set(rng.permutation(len(owners))[: hits(noise.missing_probe, len(owners))].tolist())
    found = examinations(len(owners), noise, rng)
    return [
        _StudyPlan(number, owner, counts[number], found[number], number in unnamed)
        for number, owner in enumerate(owners)
    ]


def _distribute(images: int, studies: int, rng: Generator) -> list[int]:
    """Numbers of images per study: at least one each, and many more in a few studies."""
    weights = rng.lognormal(0, 0.4, studies)
    return [1 + int(more) for more in rng.multinomial(images - studies, weights / weights.sum())]


@dataclass(frozen=True)
class _Habits:
    """Common properties of a study's images: patient, tags, linear probe, and which of two tags state the probe."""

    person: Person
    tags: Study
    linear: Probe
    has_data: bool
    has_type: bool


def _images_of(study: _StudyPlan, seed: int) -> Iterator[ImagePlan]:
    """The images of one study."""
    rng = np.random.default_rng([seed, 2, study.number])
    person, tags = _person(study.owner, seed), _study_tags(study, seed)
    linear = (LINEAR_LOW, LINEAR_HIGH)[int(rng.integers(2))]
    has_data, has_type = bool(rng.random() > 0.15), bool(rng.random() < 0.75)
    habits = _Habits(person, tags, linear, has_data, has_type or not has_data)
    if study.names_no_probe:
        habits = replace(habits, has_data=False, has_type=False)
    views = study.examination.protocol.views
    for image in range(study.images):
        view = views[int(rng.integers(len(views)))]
        probe = _probe(view, linear, rng)
        yield ImagePlan(
            path=f"{person.patient}/US{study.number:04d}/IM{image + 1:04d}{'.dcm' if study.owner % 4 else ''}",
            header=_header(habits, probe, image + 1, fixed_uid(seed, "instance", study.number, image), rng),
            examination=study.examination,
            foreign_probe=False,
            view=view,
            probe=probe,
            needle=bool(rng.random() < 0.3),
            frames=CINE_FRAMES if rng.random() < 0.02 else 1,
            encoding=ENCODINGS[int(rng.integers(len(ENCODINGS)))],
            body=(seed, 3, study.owner),
            exam=(seed, 4, study.number),
            key=(seed, 5, study.number, image),
        )


def _probe(view: str, linear: Probe, rng: Generator) -> Probe:
    """The probe of one image: the view's usual one, or now and then the other."""
    usual, other = (linear, CURVILINEAR) if view in SHALLOW else (CURVILINEAR, LINEAR_LOW)
    return other if rng.random() < OTHER_PROBE.get(view, 0) else usual


def _header(habits: _Habits, probe: Probe, number: int, instance_uid: str, rng: Generator) -> Header:
    return Header(
        habits.person,
        habits.tags,
        instance_uid=instance_uid,
        number=number,
        transducer_type=probe.kind if habits.has_type else None,
        transducer_data=(probe.model, "UNUSED", "UNUSED") if habits.has_data else None,
        regions=bool(rng.random() < 0.7),
    )


def _with_foreign_probe(plan: ImagePlan) -> ImagePlan:
    kind, data = FOREIGN_PROBE
    return replace(plan, header=replace(plan.header, transducer_type=kind, transducer_data=data), foreign_probe=True)


def _person(owner: int, seed: int) -> Person:
    rng = np.random.default_rng([seed, 6, owner])
    return Person(f"P{owner:04d}", str(rng.choice(("F", "M"))), int(rng.integers(1935, 2000)))


def _study_tags(study: _StudyPlan, seed: int) -> Study:
    """A study's tags, on a day within the paper's time of collection (section 4.1)."""
    rng = np.random.default_rng([seed, 7, study.number])
    day = date(2018, 9, 1) + timedelta(days=int(rng.integers(0, 430)))
    time = f"{int(rng.integers(8, 18)):02d}{int(rng.integers(0, 60)):02d}00"
    uids = fixed_uid(seed, "study", study.number), fixed_uid(seed, "series", study.number)
    return Study(*uids, f"{day:%Y%m%d}", time, study.examination.description)
