"""Whose labels an encoder is shown: the pool's own, or in controls others (`pipeline.pretraining.controls`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ShownLabels = Literal["own", "shuffled", "source"]


@dataclass(frozen=True)
class Wording:
    """How such labels are named: in Dagster and MLflow, in tables, and in a model card."""

    description: str
    label: str = ""
    card: str = ""


SHOWN_LABELS: Mapping[ShownLabels, Wording] = {
    "own": Wording("weak labels"),
    "shuffled": Wording(
        "weak labels, shuffled across patients",
        "labels shuffled",
        " A control: its labels were shuffled across patients, so that they are independent of the images.",
    ),
    "source": Wording(
        "sources of the images",
        "sources as labels",
        " A control: instead of the tags' labels it was shown which folder of the archive an image came from.",
    ),
}
