"""Method dcm: the encoder predicts the weak labels (paper section 4.3)."""

from pipeline.methods.method import Method, TrainingSettings, register

HEAD = "head.safetensors"
SCORES = "metadata.json"
"""How well each label is predicted on validation images."""

DCM = register(
    Method(
        name="dcm",
        label="DCM",
        description="trained to predict the weak labels",
        card="Trained to predict the weak labels that the DICOM tags carry.",
        trainer="pipeline.pretraining.metadata_classifier:MetadataRun",
        settings=TrainingSettings,
        labelled=True,
        controls=("shuffled", "source"),
        files=(HEAD, SCORES),
        curve_titles={
            "train_loss": "label loss, training",
            "val_loss": "label loss, validation",
            "val_accuracy": "accuracy of labels, validation",
        },
    )
)
