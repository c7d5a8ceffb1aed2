"""How well the audit finds studies with wrong tags: phantoms with known errors, and real images with swapped labels.

A control ranks studies by how many other studies share their groups, the rarest first, without looking at pixels.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.metrics import average_precision_score

from benchmarks.measure import Figure
from pipeline.archive.cache_builder import build_cache
from pipeline.archive.scan import index_archive
from pipeline.cohort.patient_links import canonical_patients, linked_patients, merge_overlapping, tied_patients
from pipeline.images.cache import load_pixels
from pipeline.labels.audit import Bits, Floats, doubts, out_of_fold
from pipeline.labels.audit_worklist import audited_images
from pipeline.labels.pixel_features import pixel_features
from pipeline.labels.study_groups import read_study_groups, shipped_study_groups
from pipeline.labels.weak_labels import weak_labels
from pipeline.phantom.clinic import make_phantom
from pipeline.phantom.ground_truth import RECORDS, read_rows
from pipeline.phantom.settings import Amount, LabelledAmount, Phantom
from pipeline.privacy.identity import PUBLIC_DEMO_KEY, pseudonym
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.recipe.labels import Labels

SEEDS, DRAWS, SWAPPED, FIRST = (0, 1, 2), 5, 0.05, 50
_ONE = Amount(images=1, patients=1)
_TINY = LabelledAmount(train=_ONE, val=_ONE, test=_ONE)
CLINIC = Phantom(archive=Amount(images=3600, patients=348), quality=_TINY, liver_kidney=_TINY, thyroid=_TINY)
"""The size of `recipes/phantom.yaml`."""
_ARCHIVE, _SIZE, _LABELS = Archive(description_patients=1), Images(height=64, width=96), Labels()


class Pool:
    """The images of an archive that can be audited: features, labels of groups, study, and person."""

    def __init__(self, archive: Path, mapping: Path, work: Path) -> None:
        private = work / "private"
        index = index_archive(str(archive), private, PUBLIC_DEMO_KEY, _ARCHIVE).records
        cache = build_cache(index, str(archive), private, PUBLIC_DEMO_KEY, work / "images", _SIZE, _ARCHIVE)
        groups = _LABELS.groups
        labels = weak_labels(index, read_study_groups(mapping, groups), _LABELS)
        images = audited_images(cache.images, labels, index, groups)
        one = canonical_patients(merge_overlapping([*tied_patients(index), *linked_patients(cache.images)]))
        self.features = np.stack([pixel_features(grey) for grey in load_pixels(cache.folder, images)])
        self.labels = _tags(images, groups)
        self.studies: list[str] = images["study"].to_pylist()
        self.persons = [one.get(patient, patient) for patient in images["patient"].to_pylist()]


def _tags(images: pa.Table, groups: Sequence[str]) -> Floats:
    return np.stack([images[group].to_numpy() for group in groups], 1).astype(float)


def figures(work: Path, real: Path | None) -> Iterator[Figure]:
    """Figures of phantoms of three seeds, and of `real_archive` in the folder `real` if it is given."""
    for seed in SEEDS:
        folder = work / f"phantom-{seed}"
        make_phantom(folder, seed, CLINIC, log=print)
        pool = Pool(folder / "archive", shipped_study_groups(), work / f"store-{seed}")
        yield from scores(f"phantom of seed {seed}", pool, pool.labels, _wrong_in(folder))
    if real:
        pool = Pool(real / "real_archive", real / "real_archive_groups.csv", work / "real")
        for draw in range(DRAWS):
            labels, wrong = swapped(pool, np.random.default_rng(draw))
            yield from scores(f"real_archive, draw {draw}", pool, labels, wrong.__contains__)


def _wrong_in(phantom: Path) -> Callable[[str], bool]:
    """Whether the groups of a study (pseudonym) are not those of its true examination."""
    rows = read_rows(phantom / "ground_truth" / RECORDS)
    wrong = {
        row["study_uid"] for row in rows if set(row["tag_groups"].split(",")) != set(row["true_groups"].split(","))
    }
    return {pseudonym(PUBLIC_DEMO_KEY, "study", uid) for uid in wrong}.__contains__


def swapped(pool: Pool, random: np.random.Generator) -> tuple[Floats, set[str]]:
    """Labels after SWAPPED of the persons have passed them on to one another, and the studies that this made wrong."""
    persons = sorted(set(pool.persons))
    chosen = random.choice(persons, max(2, round(SWAPPED * len(persons))), replace=False).tolist()
    rows = {person: [row for row, owner in enumerate(pool.persons) if owner == person] for person in chosen}
    labels = pool.labels.copy()
    for person, other in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
        labels[rows[person]] = pool.labels[rows[other][0]]
    changed = (labels != pool.labels).any(axis=1)
    return labels, {study for study, one in zip(pool.studies, changed, strict=True) if one}


def scores(name: str, pool: Pool, labels: Floats, is_wrong: Callable[[str], bool]) -> Iterator[Figure]:
    """Average precision, and wrong studies among the first 50, against chance and the control."""
    found = doubts(out_of_fold(pool.features, labels, pool.persons), labels, pool.studies)
    wrong = np.array([is_wrong(study) for study in found.studies])
    chance = wrong.mean()
    yield Figure(f"{name}: studies with wrong groups", f"{wrong.sum()} of {len(wrong)} ({chance:.1%})")
    for kind, score in (("audit", found.score), ("control", _rarity(pool, labels, found.studies))):
        precision = average_precision_score(wrong, score)
        yield Figure(f"{name}, {kind}: average precision (chance {chance:.2f})", f"{precision:.2f}")
        yield Figure(f"{name}, {kind}: wrong among the first {FIRST}", f"{_first(wrong, score)} of {FIRST}")
    yield Figure(f"{name}: wrong among the listed", f"{wrong[found.listed].sum()} of {found.listed.sum()}")


def _first(wrong: Bits, score: Floats) -> int:
    return int(wrong[np.argsort(-score, kind="stable")[:FIRST]].sum())


def _rarity(pool: Pool, labels: Floats, studies: Sequence[str]) -> Floats:
    """The control's score: the share of studies with other groups."""
    groups: Mapping[str, bytes] = dict(zip(pool.studies, (row.tobytes() for row in labels), strict=True))
    counts = Counter(groups.values())
    return np.array([1 - counts[groups[study]] / len(studies) for study in studies])
