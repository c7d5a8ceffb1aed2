"""The allow-lists of header fields that weak labels may use, by DICOM keyword.

A field may become a label directly (TEXT_FIELDS, NUMBER_FIELDS, with their columns in the index) if PS3.15 Table E.1-1
(the Basic Application Level Confidentiality Profile) keeps it, and if a machine or a protocol fills it, not a person at
a keyboard. StudyDescription, SeriesDescription, ProtocolName and ContrastBolusAgent, which the profile removes or
replaces, are excluded.

DESCRIPTION_FIELDS state what was examined, most of them in words that people type. They may hold a name, so their texts
are published only if enough patients share them, and become labels only through the radiologist's table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class LabelField:
    """A header field: its column in the index, and the description of that column."""

    column: str
    description: str


TEXT_FIELDS: Final[Mapping[str, LabelField]] = {
    "Modality": LabelField("modality", "Modality (0008,0060)"),
    "BodyPartExamined": LabelField("body_part_examined", "BodyPartExamined (0018,0015)"),
    "ScanningSequence": LabelField("scanning_sequence", "ScanningSequence (0018,0020), values joined by a backslash"),
    "PatientPosition": LabelField("patient_position", "PatientPosition (0018,5100)"),
    "ViewPosition": LabelField("view_position", "ViewPosition (0018,5101)"),
    "ConvolutionKernel": LabelField(
        "convolution_kernel", "ConvolutionKernel (0018,1210), values joined by a backslash"
    ),
    "Laterality": LabelField("laterality", "Laterality (0020,0060), of the series"),
    "ImageLaterality": LabelField("image_laterality", "ImageLaterality (0020,0062)"),
}
"""Texts, for label sources of kind `values`."""

NUMBER_FIELDS: Final[Mapping[str, LabelField]] = {
    "SliceThickness": LabelField("slice_thickness", "SliceThickness (0018,0050), millimetres"),
    "KVP": LabelField("kvp", "KVP (0018,0060), kilovolts"),
    "RepetitionTime": LabelField("repetition_time", "RepetitionTime (0018,0080), milliseconds"),
    "EchoTime": LabelField("echo_time", "EchoTime (0018,0081), milliseconds"),
    "MagneticFieldStrength": LabelField("magnetic_field_strength", "MagneticFieldStrength (0018,0087), tesla"),
}
"""Single positive numbers, for label sources of kind `bins`."""

DESCRIPTION_FIELDS: Final[Mapping[str, Literal["text", "codes"]]] = {
    "StudyDescription": "text",
    "RequestedProcedureDescription": "text",
    "ProcedureCodeSequence": "codes",
    "PerformedProcedureStepDescription": "text",
    "SeriesDescription": "text",
    "ProtocolName": "text",
    "AnatomicRegionSequence": "codes",
    "BodyPartExamined": "text",
}
"""Fields from which a recipe may take the description of a study; of `codes`, CodeMeaning (0008,0104) is read."""

POOLED = ("sop_instance", "frame", "patient", "shard", "position", "image_digest", "source_digest")
"""The columns of the table `images` that are also in the pool."""

BESIDE_LABELS = frozenset({*POOLED, "status", "split"})
"""Columns beside labels in some table: no label may have such a name."""
