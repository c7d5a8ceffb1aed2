"""Arms: the encoders of a recipe, fine-tuned or frozen, that a downstream comparison is made of."""

Arm = str
"""The name of a method or variant of `pretraining`; with `FROZEN` after it, its encoder is frozen in fine-tuning."""

FROZEN = "_frozen"
"""Ends the name of an arm with a frozen encoder: `ce_dcm_frozen` starts from `ce_dcm` (the paper's +F)."""

PAPER_ARMS: tuple[Arm, ...] = ("baseline", "imagenet", "dcm", "ce", "ce_dcm", "ce_dcm_frozen")
"""The arms of the paper (section 4.3): the default of a recipe."""


def encoder_of(arm: Arm) -> str:
    """The name of the encoder that an arm starts from: `ce_dcm` for both `ce_dcm` and `ce_dcm_frozen`."""
    return arm.removesuffix(FROZEN)


def is_frozen(arm: Arm) -> bool:
    """Whether fine-tuning leaves the arm's encoder unchanged."""
    return arm.endswith(FROZEN)
