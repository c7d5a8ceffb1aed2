"""The whole recipe: all sections, and the rules that span several of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator

from pipeline.recipe.archive import Archive
from pipeline.recipe.arms import encoder_of
from pipeline.recipe.automation import Automation
from pipeline.recipe.cohort import Cohort
from pipeline.recipe.downstream import Downstream
from pipeline.recipe.evaluation import Comparison, Evaluation
from pipeline.recipe.images import Images
from pipeline.recipe.labels import Labels
from pipeline.recipe.pretraining import Pretraining
from pipeline.settings import Backbone, Name, Settings


class Recipe(Settings):
    """A whole experiment. `name` is also the folder under `experiments/`."""

    name: Name
    archive: Archive = Archive()
    labels: Labels = Labels()
    cohort: Cohort = Cohort()
    images: Images = Images()
    pretraining: Pretraining = Pretraining()
    downstream: Downstream = Downstream()
    evaluation: Evaluation = Evaluation()
    automation: Automation = Automation()
    phantom: Mapping[str, Any] = {}
    """Settings of the phantom clinic, if the recipe has one; `pipeline.phantom.settings` checks them."""

    @model_validator(mode="after")
    def _every_arm_has_its_method(self) -> "Recipe":
        missing = [arm for arm in self.downstream.arms if encoder_of(arm) not in self.pretraining.encoders]
        if missing:
            which = "which neither pretraining.methods nor pretraining.variants produces"
            raise ValueError(f"downstream.arms names {', '.join(missing)}, {which}")
        for name, task in self.downstream.tasks.items():
            lacking = [b for b in self.pretraining.backbones if b not in task.learning_rate]
            if lacking:
                raise ValueError(f"downstream.tasks.{name}.learning_rate lacks {', '.join(lacking)}")
        return self

    @model_validator(mode="after")
    def _no_arm_is_an_onnx_file(self) -> "Recipe":
        for arm in self.downstream.arms:
            external = getattr(self.pretraining.settings_of(encoder_of(arm), 0), "external", {})
            if any(one.is_onnx for one in external.values()):
                raise ValueError(
                    f"downstream.arms names {arm}, an ONNX file, which only the frozen evaluation can score: remove it"
                )
        return self

    @model_validator(mode="after")
    def _comparisons_are_of_its_arms(self) -> "Recipe":
        named = {arm for c in self.evaluation.comparisons for arm in (c.arm, c.against)}
        missing = sorted(named - set(self.downstream.arms))
        if missing and "comparisons" in self.evaluation.model_fields_set:
            raise ValueError(f"evaluation.comparisons names {', '.join(missing)}, which downstream.arms does not train")
        backbones = {backbone for c in self.evaluation.comparisons for backbone in c.backbones or ()}
        if lacking := sorted(backbones - {*self.pretraining.backbones}):
            which = "which pretraining.backbones does not train"
            raise ValueError(f"evaluation.comparisons names {', '.join(lacking)}, {which}")
        return self

    @model_validator(mode="after")
    def _every_encoder_is_fine_tuned_as_often(self) -> "Recipe":
        tuned, trained = len(self.downstream.seeds), len(self.pretraining.seeds)
        if self.downstream.tasks and tuned % trained:
            raise ValueError(
                f"downstream.seeds has {tuned} seeds, not a multiple of the {trained} in pretraining.seeds"
            )
        return self

    def pretraining_seed(self, seed: int) -> int:
        """Seed of the encoder from which the models of that fine-tuning seed start: `pretraining.seeds` in turn."""
        seeds = self.pretraining.seeds
        return seeds[self.downstream.seeds.index(seed) % len(seeds)]

    def with_files(self, change: Callable[[str], str]) -> "Recipe":
        """The recipe with the path of every manifest, weights file and encoder folder replaced by `change` of it."""
        tasks = {
            name: task.model_copy(update={"manifest": change(task.manifest)})
            for name, task in self.downstream.tasks.items()
        }
        return self.model_copy(
            update={
                "downstream": self.downstream.model_copy(update={"tasks": tasks}),
                "pretraining": self.pretraining.with_files(change),
            }
        )

    @property
    def shared(self) -> dict[str, Any]:
        """The recipe as JSON values that can be shared: file names for paths, only the comparisons that it makes."""
        evaluation = self.evaluation.model_copy(update={"comparisons": self.comparisons})
        shared = self.with_files(lambda path: Path(path).name).model_copy(update={"evaluation": evaluation})
        return shared.model_dump(mode="json")

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons whose arms the recipe trains: the default comparison is left out if it does not."""
        arms = self.downstream.arms
        return tuple(c for c in self.evaluation.comparisons if c.arm in arms and c.against in arms)

    @property
    def compared(self) -> tuple[tuple[Comparison, Backbone], ...]:
        """Every comparison with each backbone on which it is tested."""
        every = self.pretraining.backbones
        return tuple((c, b) for c in self.comparisons for b in every if c.backbones is None or b in c.backbones)
