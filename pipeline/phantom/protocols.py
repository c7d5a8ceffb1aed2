"""The study descriptions of Table A1, with frequency, views, groups and side of each."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator

from pipeline.labels.review_cells import Groups
from pipeline.labels.study_groups import StudyGroups, read_study_groups, shipped_study_groups
from pipeline.recipe.labels import StudyGroupsSource


@dataclass(frozen=True)
class Protocol:
    """A study description, its relative frequency, and its views."""

    description: str
    weight: float
    views: tuple[str, ...]

    @property
    def side(self) -> str:
        """left, right, or empty if the description has no side."""
        return next((word.lower() for word in ("LEFT", "RIGHT") if f"({word})" in self.description), "")

    @property
    def other_side(self) -> "Protocol | None":
        """The same examination of the other side, None if there is none."""
        if not self.side:
            return None
        other = "(RIGHT)" if self.side == "left" else "(LEFT)"
        return _BY_DESCRIPTION.get(self.description.replace(f"({self.side.upper()})", other))

    @property
    def mapped_groups(self) -> Groups:
        """The groups of the description in Table A1; none if it is not there."""
        return _table_a1().groups_of(self.description) or ()

    @property
    def groups(self) -> Groups:
        """The examined groups: those of Table A1 with its two errors corrected."""
        return _CORRECTED_GROUPS.get(self.description, self.mapped_groups)


# An examination's pictures also show neighbouring organs.
_THYROID = (*("thyroid_nodule",) * 5, "thyroid", "thyroid", "lymph_node")
_NODE = (*("lymph_node",) * 6, "soft_tissue_mass", "thyroid")
_KIDNEY = (*("kidney_view",) * 5, "morison", "morison", "liver")
_ASCITES = (*("ascites",) * 6, "collection", "liver")
_CHEST = (*("effusion",) * 5, "aerated_lung", "aerated_lung", "liver")

PROTOCOLS: tuple[Protocol, ...] = (
    Protocol("US BIOPSY LIVER NONFOCAL", 10, (*("liver",) * 6, "morison", "morison", "ascites")),
    Protocol("US BIOPSY LIVER FOCAL", 8, (*("liver_lesion",) * 5, "liver", "liver", "morison")),
    Protocol("US LYMPH NODE BIOPSY", 7, _NODE),
    Protocol("US BIOPSY KIDNEY NONFOCAL (EITHER SIDE)", 8, _KIDNEY),
    Protocol("US PARACENTESIS THERAPEUTIC", 8, _ASCITES),
    Protocol("US BIOPSY TRANSPLANTED KIDNEY", 6, (*("transplant",) * 7, "collection")),
    Protocol("US PARACENTESIS DIAGNOSTIC AND THERAPEUTIC", 5, _ASCITES),
    Protocol("US THYROID BIOPSY", 9, _THYROID),
    Protocol("US PARACENTESIS DIAGNOSTIC", 3, _ASCITES),
    Protocol("US THORACENTESIS DIAGNOSTIC AND THERAPEUTIC", 5, _CHEST),
    Protocol("US THYROID ASPIRATION/FNA", 8, _THYROID),
    Protocol("US DRAINAGE INTERVENTION NOT OTHERWISE SPECIFIED", 2, ("abscess",)),
    Protocol("US DRAINAGE ABDOMEN", 3, (*("collection",) * 5, "ascites", "liver")),
    Protocol("US DRAINAGE GALLBLADDER (CHOLECYSTOSTOMY)", 2, ("cholecystostomy",)),
    Protocol("US THORACENTESIS THERAPEUTIC (RIGHT)", 2, _CHEST),
    Protocol("US THORACENTESIS THERAPEUTIC (LEFT)", 2, _CHEST),
    Protocol("US BIOPSY MESENTERY", 0.7, ("collection", "soft_tissue_mass")),
    Protocol("US NECK SOFT TISSUE BIOPSY", 2, ("lymph_node", "lymph_node", "soft_tissue_mass", "thyroid")),
    Protocol("US DRAINAGE CATHETER PLACEMENT", 1.5, ("abscess",)),
    Protocol("US DRAINAGE PELVIS", 1.5, ("collection",)),
    Protocol("US SOFT TISSUE BIOPSY", 3, (*("soft_tissue_mass",) * 5, "lymph_node")),
    Protocol("US BIOPSY KIDNEY NONFOCAL (LEFT)", 1.5, ("kidney_view",)),
    Protocol("US CHEST TUBE PLACEMENT (RIGHT)", 1, ("aerated_lung", "effusion")),
    Protocol("US BIOPSY NOT OTHERWISE SPECIFIED", 1, ("soft_tissue_mass", "abscess")),
    Protocol("US ABDOMINAL PELVIC BIOPSY NOT OTHERWISE SPECIFIED", 1, ("collection", "soft_tissue_mass")),
    Protocol("US CHEST TUBE PLACEMENT (LEFT)", 1, ("aerated_lung", "effusion")),
    Protocol("CT BIOPSY LIVER FOCAL", 0.7, ("liver_lesion",)),
    Protocol("US BIOPSY KIDNEY FOCAL (LEFT)", 0.5, ("kidney_view",)),
    Protocol("US ASPIRATION ABDOMINAL COLLECTION", 1, ("collection",)),
    Protocol("CT LYMPH NODE BIOPSY", 0.5, _NODE),
    Protocol("US DRAINAGE LIVER", 0.7, ("liver_lesion",)),
    Protocol("US BIOPSY RETROPERITONEUM", 0.5, ("collection", "kidney_view")),
    Protocol("US LYMPH NODE ASPIRATION/FNA", 0.7, _NODE),
    Protocol("US SOFT TISSUE ASPIRATION", 0.7, ("abscess",)),
    Protocol("US ASPIRATION PELVIS", 0.5, ("collection",)),
    Protocol("US THORACENTESIS DIAGNOSTIC (RIGHT)", 0.7, _CHEST),
    Protocol("US THORACENTESIS DIAGNOSTIC (LEFT)", 0.7, _CHEST),
    Protocol("US DRAINAGE KIDNEY/PARARENAL (RIGHT)", 0.4, ("kidney_view",)),
    Protocol("US HEAD/NECK INTERVENTION NOT OTHERWISE SPECIFIED", 0.5, ("soft_tissue_mass", "lymph_node")),
    Protocol("US BIOPSY KIDNEY FOCAL (RIGHT)", 0.5, ("kidney_view", "morison")),
    Protocol("CT ABDOMINAL PELVIC BIOPSY NOT OTHERWISE SPECIFIED", 0.3, ("collection",)),
    Protocol("US DRAINAGE KIDNEY/PARARENAL (LEFT)", 0.4, ("kidney_view",)),
    Protocol("IR PARACENTESIS (THERAPEUTIC)", 0.5, _ASCITES),
    Protocol("US PSEUDOANEURYSM THROMBIN INJECTION", 0.5, ("pseudoaneurysm",)),
)
"""Table A1, most frequent first as printed in the paper; the weights are ours."""

OTHER_ORGANS: tuple[Protocol, ...] = (Protocol("US SHOULDER", 1, ("shoulder",)),)
"""Examinations that are not in Table A1."""

_BY_DESCRIPTION = {protocol.description: protocol for protocol in PROTOCOLS}
_CORRECTED_GROUPS: dict[str, Groups] = {
    "US BIOPSY KIDNEY FOCAL (LEFT)": ("kidney", "abdomen"),
    "US DRAINAGE KIDNEY/PARARENAL (LEFT)": ("kidney", "abdomen", "drainage"),
}
"""The two rows that Table A1 maps differently from those of the other side."""


@cache
def _table_a1() -> StudyGroups:
    return read_study_groups(shipped_study_groups(), StudyGroupsSource().groups)


def sample_protocols(count: int, rng: Generator) -> list[Protocol]:
    """`count` protocols in random order, each in proportion to its weight (systematic sampling)."""
    weights = np.array([protocol.weight for protocol in PROTOCOLS])
    marks = (np.arange(count) + rng.uniform()) / count
    drawn = np.searchsorted(np.cumsum(weights) / weights.sum(), marks)
    return [PROTOCOLS[i] for i in rng.permutation(drawn)]
