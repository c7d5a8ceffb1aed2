"""Method ce_aux: a context encoder without adversary, whose encoder also predicts the weak labels."""

from dataclasses import replace

from pipeline.methods.ce import CE
from pipeline.methods.dcm import DCM
from pipeline.methods.method import TrainingSettings, register
from pipeline.settings import Rate


class AuxiliaryLabelSettings(TrainingSettings):
    """Settings of inpainting with a label loss beside it."""

    label_share: Rate = 1.0
    """Ratio of the label loss's gradient norm to the reconstruction's, at the encoder's weights."""


LABEL_TITLES = {
    "train_loss": "loss, training",
    "val_loss": "loss, validation",
    "train_label_loss": "label loss, training",
    "val_label_loss": "label loss, validation",
    "val_accuracy": "accuracy of labels, validation",
    "train_label_share": "label gradient / reconstruction's, encoder's weights",
    "train_label_weight": "weight of the label loss, training",
}
"""Curves of every method with such a label loss."""

CE_AUX = register(
    replace(
        CE,
        name="ce_aux",
        label="CE+Aux",
        description="context encoder without adversary that also predicts the weak labels",
        card="Trained to inpaint the hidden centre of ultrasound images and, from the features of the same masked "
        "image, to predict the weak labels that the DICOM tags carry.",
        trainer="pipeline.pretraining.auxiliary_labels:AuxiliaryLabelRun",
        settings=AuxiliaryLabelSettings,
        labelled=True,
        controls=("shuffled", "source"),
        files=(*CE.files, *DCM.files),
        curve_titles={**CE.curve_titles, **LABEL_TITLES},
    )
)
