"""A recipe: a whole experiment as data, as a methods section would state it. One file per section of its YAML."""

from pipeline.recipe.archive import Archive
from pipeline.recipe.arms import FROZEN, Arm, encoder_of, is_frozen
from pipeline.recipe.automation import Automation
from pipeline.recipe.cohort import Cohort
from pipeline.recipe.downstream import Champion, Downstream, Metric, Task
from pipeline.recipe.evaluation import Comparison, Evaluation
from pipeline.recipe.images import Images
from pipeline.recipe.labels import (
    PROBES,
    BinsSource,
    Labels,
    Probe,
    ProbeSource,
    Source,
    StudyGroupsSource,
    ValuesSource,
    folded,
)
from pipeline.recipe.pretraining import Pretraining, Variant
from pipeline.recipe.reading import existing_file, load_recipe, shipped_recipes
from pipeline.recipe.whole import Recipe
from pipeline.settings import Augmentation, Backbone, Precision, Share, Side

__all__ = [
    "FROZEN",
    "PROBES",
    "Archive",
    "Arm",
    "Augmentation",
    "Automation",
    "Backbone",
    "BinsSource",
    "Champion",
    "Cohort",
    "Comparison",
    "Downstream",
    "Evaluation",
    "Images",
    "Labels",
    "Metric",
    "Precision",
    "Pretraining",
    "Probe",
    "ProbeSource",
    "Recipe",
    "Share",
    "Side",
    "Source",
    "StudyGroupsSource",
    "Task",
    "ValuesSource",
    "Variant",
    "encoder_of",
    "existing_file",
    "folded",
    "is_frozen",
    "load_recipe",
    "shipped_recipes",
]
