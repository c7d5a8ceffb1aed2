"""How well trivial features (grey histogram, corners) predict the phantom's labels.

A logistic regression, class-balanced and cross-validated by patient; balanced accuracy, so chance is one over the
number of classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.measure import Figure
from pipeline.phantom.downstream import cases, graded_view, labelled_sets
from pipeline.phantom.scanner import CURVILINEAR, View
from pipeline.phantom.settings import Amount, Phantom
from pipeline.phantom.studies import clinic, frames_of
from pipeline.recipe.labels import Labels

Grey = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]

BINS = 16
PER_PATIENT = 5
SMALL = (96, 64)  # width and height of the demo recipe's images


@dataclass(frozen=True)
class Seen:
    """A picture's features (histogram of the tissue on the screen, and at SMALL; corners), its patient, its labels."""

    screen: list[float]
    small: list[float]
    corners: list[float]
    patient: int
    labels: dict[str, int]


def histogram(grey: Grey, inside: Bits) -> list[float]:
    """Shares of BINS grey levels among the insonated pixels, their mean and deviation (0 to 1)."""
    levels = grey[inside]
    shares = np.bincount(levels // (256 // BINS), minlength=BINS) / levels.size
    return [*shares.tolist(), float(levels.mean()) / 255, float(levels.std()) / 255]


def corners(grey: Grey) -> list[float]:
    """Mean grey of the four corners of a picture, each a 24th of its height wide."""
    side = max(2, grey.shape[0] // 24)
    ends = (slice(None, side), slice(-side, None))
    return [float(grey[rows, columns].mean()) for rows in ends for columns in ends]


def balanced_accuracy(features: list[list[float]], labels: list[int], patients: list[int]) -> float:
    """Balanced accuracy of a logistic regression on held-out patients."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    truth = np.array(labels)
    predicted = cross_val_predict(model, np.array(features), truth, groups=np.array(patients), cv=GroupKFold(5))
    return float(balanced_accuracy_score(truth, predicted))


def archive(count: int, seed: int = 0) -> Iterator[Seen]:
    """Pictures of a clinic's archive; labels: each group of the examination, and `curvilinear`."""
    settings = Phantom(archive=Amount(images=count, patients=count // PER_PATIENT))
    patients: dict[str, int] = {}
    for plan in clinic(settings, seed):
        patient = patients.setdefault(plan.header.person.patient, len(patients))
        labels = {group: int(group in plan.examination.protocol.groups) for group in Labels().groups}
        yield _seen(frames_of(plan)[0], patient, {**labels, "curvilinear": int(plan.probe is CURVILINEAR)})


def quality(count: int, seed: int = 0) -> Iterator[Seen]:
    """Pictures of the quality set; label: `grade`."""
    for case in [case for case in cases(labelled_sets(Phantom())) if case.of.name == "quality"][:count]:
        grade, view = graded_view(case, seed)
        yield _seen(view, case.patient, {"grade": grade})


def figures(count: int = 800) -> list[Figure]:
    """Balanced accuracy for every label, from grey levels on the screen, at SMALL, and from corners."""
    seen = list(archive(count))
    rows = [_figure(seen, label) for label in seen[0].labels if _enough_patients(seen, label)]
    graded = list(quality(count))
    return [
        *rows,
        _figure(graded, "grade"),
        _figure([one for one in graded if one.labels["grade"]], "grade", "grade 1 to 4"),
    ]


def read(seen: list[Seen], label: str, features: str) -> float:
    """Balanced accuracy of one kind of features for one label."""
    chosen = [getattr(one, features) for one in seen]
    return balanced_accuracy(chosen, [one.labels[label] for one in seen], [one.patient for one in seen])


def _enough_patients(seen: list[Seen], label: str) -> bool:
    """Whether at least six patients have a label and six do not."""
    sides = {value: {one.patient for one in seen if one.labels[label] == value} for value in (0, 1)}
    return min(map(len, sides.values())) >= 6


def _figure(seen: list[Seen], label: str, name: str | None = None) -> Figure:
    chance = 1 / len({one.labels[label] for one in seen})
    read_from = [read(seen, label, features) for features in ("screen", "small", "corners")]
    accuracies = ", ".join(f"{value:.2f}" for value in read_from)
    return Figure(
        f"{name or label}: from the histogram, that of 64 × 96, the corners (chance {chance:.2f})", accuracies
    )


def _seen(view: View, patient: int, labels: dict[str, int]) -> Seen:
    top, left, height, width = view.box
    inside = view.inside[top : top + height, left : left + width]
    grey = view.grey[top : top + height, left : left + width] * inside
    small = [np.asarray(Image.fromarray(image).resize(SMALL, Image.Resampling.BOX)) for image in (grey, inside * _LIT)]
    return Seen(histogram(grey, inside), histogram(small[0], small[1] == _LIT), corners(grey), patient, labels)


_LIT = np.uint8(255)
