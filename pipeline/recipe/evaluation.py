"""The section `evaluation`: the bootstrap (paper Table 2) and tests of significance (docs/evaluation.md)."""

from operator import not_
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from pipeline.recipe.arms import Arm
from pipeline.settings import Backbone, EachOnce, Seed, Settings, Share


class Comparison(Settings):
    """Two arms whose difference is tested, on every task."""

    arm: Arm
    against: Arm
    backbones: Annotated[tuple[Backbone, ...] | None, Field(min_length=1), EachOnce] = None
    """None: every backbone of the recipe."""

    def repeats(self, other: "Comparison") -> bool:
        """Whether both test the same two arms on the same backbone."""
        if {self.arm, self.against} != {other.arm, other.against}:
            return False
        return self.backbones is None or other.backbones is None or bool({*self.backbones} & {*other.backbones})

    @model_validator(mode="after")
    def _arms_differ(self) -> "Comparison":
        if self.arm == self.against:
            raise ValueError(f"{self.arm} is compared with itself")
        return self


class Evaluation(Settings):
    """Bootstrap of the printed deviation, and the family of tests."""

    resamples: Annotated[int, Field(ge=1, le=100_000)] = 1000
    resample_share: Share = 0.5
    comparisons: tuple[Comparison, ...] = (Comparison(arm="ce_dcm", against="ce"),)
    """The family of tests: each of these on every task and its backbones; in each regime its p-values are adjusted."""
    test_resamples: Annotated[int, Field(ge=20_000, le=10_000_000)] = 20_000
    """Resamples of a test of significance: its smallest p-value is 1 / (resamples + 1)."""
    seed: Seed = 0
    leave_one_source_out: Annotated[bool, Field(exclude_if=not_)] = False
    """Frozen evaluation also scores the images of each source by a fit on the images of all other sources."""

    @field_validator("comparisons")
    @classmethod
    def _are_named_once(cls, comparisons: tuple[Comparison, ...]) -> tuple[Comparison, ...]:
        repeated = [c for i, c in enumerate(comparisons) if any(c.repeats(other) for other in comparisons[:i])]
        if repeated:
            raise ValueError(f"{repeated[0].arm} and {repeated[0].against} are compared more than once")
        return comparisons
