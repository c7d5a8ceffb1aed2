"""The encoders of a recipe, each with everything that determines its training."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pipeline.errors import UserError
from pipeline.methods import EncoderSettings, ShownLabels
from pipeline.pretraining.controls import Sources, with_label_variant, without_source
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.pretrain import pretrain
from pipeline.progress import Log
from pipeline.recipe import Recipe
from pipeline.settings import Backbone
from pipeline.store import Experiment, Store
from pipeline.training.loop import OnEpoch
from pipeline.training.outcome import Outcome, has_run


@dataclass(frozen=True)
class PlannedEncoder:
    """One encoder: of a backbone, of a method or variant (`encoder` is its name), and of a seed."""

    name: str
    """Its name in the log, with the seed if there are several."""
    backbone: Backbone
    encoder: str
    method: str
    labels: ShownLabels
    settings: EncoderSettings
    folder: Path
    without_source: int | None = None

    def pool(self, pool: PretrainingSet, sources: Sources) -> PretrainingSet:
        """The recipe's pool as this encoder is shown it."""
        if self.without_source is not None:
            pool = without_source(pool, sources(), self.without_source)
        return with_label_variant(self.labels, pool, self.settings.seed, sources)

    def pretrain(self, pool: PretrainingSet, log: Log, on_epoch: OnEpoch) -> Outcome:
        """Train it on `pool`, which is that of `self.pool`; as `pipeline.pretraining.pretrain.pretrain`."""
        return pretrain(self.backbone, self.method, pool, self.settings, self.folder, log, on_epoch, self.name)


def planned_encoders(
    recipe: Recipe,
    experiment: Experiment,
    backbone: Backbone | None = None,
    encoder: str | None = None,
    seed: int | None = None,
) -> list[PlannedEncoder]:
    """The recipe's encoders, backbone by backbone, name by name, seed by seed; if one is given, only that one's.

    `encoder` may be a method that the recipe does not train.
    """
    settings = recipe.pretraining
    backbones, encoders = [backbone] if backbone else settings.backbones, [encoder] if encoder else settings.encoders
    seeds = settings.seeds if seed is None else [seed]
    return [_planned(recipe, experiment, *one) for one in product(backbones, encoders, seeds)]


def finished_encoders(recipe: Recipe, store: Store) -> list[PlannedEncoder]:
    """The recipe's encoders whose training has ended with an encoder. Raises `UserError` if there is none."""
    found = [one for one in planned_encoders(recipe, store.experiment(recipe.name)) if has_run(one.folder)]
    if not found:
        raise UserError(f"{store.root} holds no finished encoder of the recipe {recipe.name}: run the job `pretrain`.")
    return found


def _planned(recipe: Recipe, experiment: Experiment, backbone: Backbone, encoder: str, seed: int) -> PlannedEncoder:
    settings = recipe.pretraining
    return PlannedEncoder(
        name=f"{backbone} {encoder}" + (f", seed {seed}" if len(settings.seeds) > 1 else ""),
        backbone=backbone,
        encoder=encoder,
        method=settings.method_of(encoder).name,
        labels=settings.labels_of(encoder),
        settings=settings.settings_of(encoder, seed),
        folder=experiment.encoder(backbone, encoder, seed),
        without_source=settings.left_out_of(encoder),
    )
