"""Method spark_aux: masked patches as in spark, and the encoder also predicts the weak labels, as in ce_aux."""

from dataclasses import replace

from pipeline.methods.ce_aux import LABEL_TITLES, AuxiliaryLabelSettings
from pipeline.methods.dcm import DCM
from pipeline.methods.method import register
from pipeline.methods.spark import SPARK, SparkSettings


class SparkAuxSettings(SparkSettings, AuxiliaryLabelSettings):
    """Settings of masked patches with a label loss beside them."""


SPARK_AUX = register(
    replace(
        SPARK,
        name="spark_aux",
        label="SparK+Aux",
        description="masked patches inpainted from sparse features that also predict the weak labels",
        card="Trained to inpaint hidden patches of ultrasound images, from features of the visible patches alone "
        "(SparK), and to predict from the same features the weak labels that the DICOM tags carry.",
        trainer="pipeline.pretraining.spark:SparkAuxRun",
        settings=SparkAuxSettings,
        labelled=True,
        controls=("shuffled", "source"),
        files=DCM.files,
        curve_titles={**LABEL_TITLES, "val_patch_error": "error of hidden patches, validation"},
    )
)
