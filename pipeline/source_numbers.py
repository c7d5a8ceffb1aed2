"""The numbers that stand for the archive's sources, its first-level folders, which can have people's names."""

from collections import Counter
from collections.abc import Hashable, Sequence


def source_numbers(folders: Sequence[bytes], patients: Sequence[Hashable]) -> list[int]:
    """The number of each image's source, from 1, which has the most patients.

    `folders` and `patients` are the source and the patient of each image. Of sources with equally many patients the
    first by name has the lower number.
    """
    counts = Counter(folder for folder, _ in set(zip(folders, patients, strict=True)))
    ranked = sorted(counts, key=lambda folder: (-counts[folder], folder))
    number = {folder: rank for rank, folder in enumerate(ranked, 1)}
    return [number[folder] for folder in folders]
