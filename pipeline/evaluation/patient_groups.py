"""Groups of scored images, such as those of one machine or of one source, with enough patients for an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.significance import FEWEST_PATIENTS


@dataclass(frozen=True)
class Group:
    """Images by their positions; `is_scored` if they are of `FEWEST_PATIENTS` patients and share the name."""

    name: str
    images: tuple[int, ...]
    is_scored: bool


def patient_groups(names: Sequence[str], patients: Sequence[str]) -> list[Group]:
    """The groups of images, most patients first; none if there is one, or if none would be scored.

    `names` and `patients` are group and patient of each image. All groups with fewer than `FEWEST_PATIENTS` patients
    are one last group without a score, called by their number: an interval would mean little, and the name of a machine
    that few patients saw is not published.
    """
    found: dict[str, list[int]] = {}
    for image, name in enumerate(names):
        found.setdefault(name, []).append(image)
    counts = {name: len({patients[image] for image in images}) for name, images in found.items()}
    ranked = sorted(found, key=lambda name: (-counts[name], name))
    scored = [name for name in ranked if counts[name] >= FEWEST_PATIENTS]
    if len(ranked) < 2 or not scored:
        return []
    small = tuple(image for name in ranked[len(scored) :] for image in found[name])
    rest = len(ranked) - len(scored)
    others = [Group(f"{rest} other{'s' * (rest > 1)}", small, False)] if rest else []
    return [*(Group(name, tuple(found[name]), True) for name in scored), *others]
