"""The section `automation`: when work starts without a person, if that is switched on in Dagster (docs/running.md)."""

from pipeline.settings import Count, Rate, Settings


class Automation(Settings):
    """When the archive is read and encoders are trained."""

    settle_minutes: Rate = 5.0
    """The archive is read after so many minutes without a change in it."""
    longest_wait_hours: Rate = 6.0
    """An archive that never pauses is read after so many hours."""
    new_patients: Count = 50
    """Encoders are trained again after so many new patients."""
