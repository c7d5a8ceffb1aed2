"""Method baseline: random initialization, no pretraining."""

from pipeline.methods.method import Method, register

BASELINE = register(
    Method(
        name="baseline",
        label="Baseline",
        description="random initialisation, no pretraining",
        card="Random initialization, not trained: what every other method starts from and is compared with.",
        trainer="pipeline.pretraining.untrained:Baseline",
    )
)
