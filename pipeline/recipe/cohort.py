"""The section `cohort`: how patients are split (paper section 4.2.2)."""

from typing import Annotated

from pydantic import Field

from pipeline.settings import Settings


class Cohort(Settings):
    """The patients' split."""

    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
