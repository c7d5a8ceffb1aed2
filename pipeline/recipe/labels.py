"""The section `labels`: the label space, and how DICOM tags become weak labels (paper section 3.3)."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.label_fields import BESIDE_LABELS, NUMBER_FIELDS, TEXT_FIELDS
from pipeline.settings import EachOnce, Settings, one_of

Shape = Literal[
    "linear", "curvilinear", "phased", "endocavity", "volume", "intraoperative", "endoluminal", "pencil", "several"
]
SHAPES: Mapping[Shape, str] = {
    "linear": "a flat array; hockey sticks are included",
    "curvilinear": "a convex array on the skin, of any radius",
    "phased": "a sector from a small array, steered electronically or mechanically",
    "endocavity": "vaginal or rectal, with one plane, two or a volume",
    "volume": "a volume from the skin, by a moving or a two-dimensional array",
    "intraoperative": "a convex array on an exposed organ, or a laparoscope",
    "endoluminal": "in the oesophagus, the heart or a vessel",
    "pencil": "Doppler without an image",
    "several": "one probe that replaces several shapes",
}
"""Shapes of probes with their definitions. Each probe has one."""
_PAPERS: tuple[Shape, ...] = ("linear", "curvilinear")
"""The labels of the paper. Recipes with these are recorded without `shapes`, as those of earlier versions."""

LabelName = Annotated[str, Field(pattern=r"^\w([\w .:/-]*\w)?$", max_length=64)]
"""A column of the tables and the name of a metric in MLflow, which allows no other characters."""
Value = Annotated[str, Field(pattern=r"\S")]


class StudyGroupsSource(Settings):
    """Labels from the description of the study, by the radiologist's table (SONOTAG_STUDY_GROUPS)."""

    kind: Literal["study_groups"] = "study_groups"
    groups: Annotated[tuple[LabelName, ...], Field(min_length=1)] = (
        *("liver", "kidney", "thyroid", "abdomen", "chest", "soft tissue", "nodule", "drainage"),
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of this source."""
        return self.groups


class ProbeSource(Settings):
    """Labels from the probe's shape: Manufacturer, TransducerType and TransducerData, and the tables of probes."""

    kind: Literal["probe"] = "probe"
    shapes: Annotated[tuple[Shape, ...], Field(min_length=1, exclude_if=_PAPERS.__eq__), EachOnce] = _PAPERS
    """The labels, some of `SHAPES`. The labels of a probe of another shape are not known."""
    models: Mapping[str, Shape] = {"SC6-1": "curvilinear", "SL10-2": "linear", "SL15-4": "linear"}
    """Probes by name. Those of a recipe go before all tables of probes; the default has the paper's, as the tables."""
    words: Mapping[str, Shape] = {
        "CURVED LINEAR": "curvilinear",
        "CURVILINEAR": "curvilinear",
        "CONVEX": "curvilinear",
        "LINEAR": "linear",
    }
    """Whole words of TransducerType, then TransducerData; the longest that occurs decides."""
    prefixes: Mapping[str, Shape] = {"SC": "curvilinear", "SL": "linear", "C": "curvilinear", "L": "linear"}
    """Letters before the frequency band of a name, such as the L of L14-6Ns, for all makers alike.

    Those of a recipe read names that no table has. The default, which the tables of probes replace, reads none: it
    stays so that tables and pools of earlier versions remain valid.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of this source."""
        return self.shapes

    @property
    def own_models(self) -> Mapping[str, Shape]:
        """`models`, if they are not the default."""
        return {} if self.models == ProbeSource.model_fields["models"].default else self.models

    @property
    def own_prefixes(self) -> Mapping[str, Shape]:
        """`prefixes`, if they are not the default."""
        return {} if self.prefixes == ProbeSource.model_fields["prefixes"].default else self.prefixes


class ValuesSource(Settings):
    """Labels from the value of a text field of the header, such as BodyPartExamined."""

    kind: Literal["values"] = "values"
    field: Annotated[str, one_of(TEXT_FIELDS)]
    """Keyword of the field."""
    labels: Annotated[Mapping[LabelName, Annotated[tuple[Value, ...], Field(min_length=1)]], Field(min_length=1)]
    """Each label with the values that mean it, regardless of case and spaces; one value may mean several labels."""

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of this source."""
        return tuple(self.labels)


class BinsSource(Settings):
    """Labels from ranges of a number in the header, such as SliceThickness."""

    kind: Literal["bins"] = "bins"
    field: Annotated[str, one_of(NUMBER_FIELDS)]
    """Keyword of the field."""
    edges: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)]
    """Ascending, in the field's unit. A number that equals an edge belongs to the range above it."""
    labels: tuple[LabelName, ...]
    """One more than edges: below the first, from each edge up to the next, and from the last one on."""

    @model_validator(mode="after")
    def _labels_fit_the_edges(self) -> "BinsSource":
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("edges must ascend")
        if len(self.labels) != len(self.edges) + 1:
            raise ValueError(f"labels must be one more than edges, {len(self.edges) + 1}, and are {len(self.labels)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of this source."""
        return self.labels


Source = StudyGroupsSource | ProbeSource | ValuesSource | BinsSource


def folded(name: str) -> str:
    """A label's name in the form in which names are compared: without case and extra spaces."""
    return " ".join(name.casefold().split())


class Labels(Settings):
    """The label space and how tags become labels."""

    sources: tuple[Annotated[Source, Field(discriminator="kind")], ...] = (StudyGroupsSource(), ProbeSource())
    """In the order of the label space."""
    missing: Literal["exclude", "mask"] = "exclude"
    """What becomes of an image whose labels a source leaves open: all methods exclude it or mask unknown labels."""
    largest_unmapped_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the records; a check warns if more have a study description that is not reviewed."""

    @property
    def names(self) -> tuple[str, ...]:
        """The label space in its fixed order."""
        return tuple(name for source in self.sources for name in source.names)

    @property
    def groups(self) -> tuple[str, ...]:
        """The labels from the radiologist's table; none if no source uses it."""
        return tuple(name for s in self.sources if isinstance(s, StudyGroupsSource) for name in s.groups)

    @model_validator(mode="after")
    def _every_label_has_one_source(self) -> "Labels":
        if not self.sources:
            raise ValueError("sources is empty")
        repeated = [name for name, count in Counter(map(folded, self.names)).items() if count > 1]
        if repeated:
            raise ValueError(f"sources name {', '.join(repeated)} more than once, regardless of case")
        taken = [name for name in self.names if folded(name) in BESIDE_LABELS]
        if taken:
            raise ValueError(f"a label cannot be called {taken[0]}: the tables have such a column")
        if sum(isinstance(source, StudyGroupsSource) for source in self.sources) > 1:
            raise ValueError("sources hold study_groups more than once")
        return self
