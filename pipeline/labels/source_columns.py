"""The index columns of each label source, named apart from `sources` so that Dagster's catalog loads quickly."""

from pipeline.label_fields import NUMBER_FIELDS, TEXT_FIELDS
from pipeline.recipe.labels import BinsSource, ProbeSource, Source, StudyGroupsSource, ValuesSource


def columns_of(source: Source) -> tuple[str, ...]:
    """The columns of the index that `source` reads."""
    match source:
        case StudyGroupsSource():
            return ("study_description",)
        case ProbeSource():
            return ("transducer_type", "transducer_data")
        case ValuesSource():
            return (TEXT_FIELDS[source.field].column,)
        case BinsSource():
            return (NUMBER_FIELDS[source.field].column,)
