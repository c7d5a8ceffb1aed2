"""Tables of probes: maker, name or pattern, shape; the shipped one and a user's own rows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path

from pipeline.csv_files import NOT_REVIEWED, Row, csv_files_in, has_columns, read_csv
from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.labels.makers import MAKERS, maker_of
from pipeline.labels.probe_names import NamePattern, name_key, pattern_of
from pipeline.labels.review_cells import shape_in
from pipeline.recipe.labels import Labels, ProbeSource, Shape

COLUMNS = ("manufacturer", "name", "shape")
NOTES = ("source", "model", "images", "patients", "why")
"""Columns that a row may have for its reader."""
OTHER_MAKER = ""
"""Instead of a maker: files without Manufacturer, or of one that `MAKERS` lacks."""

_NAME = "Probes"


@dataclass(frozen=True)
class ProbeRow:
    """A probe or a pattern of names of one maker; `location` names its file and line in error messages."""

    maker: str
    pattern: NamePattern
    shape: Shape
    location: str = ""


@dataclass(frozen=True)
class ProbeTable:
    """The rows of one table. Raises `UserError` if two of them contradict each other."""

    rows: tuple[ProbeRow, ...] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            for other in self.rows[:number]:
                if _contradict(row, other):
                    raise UserError(
                        f"{row.location}: {row.pattern.text} of {row.maker or 'another maker'} is {row.shape}, but "
                        f"{other.location}: {other.pattern.text} is {other.shape}."
                    )

    def shape_of(self, maker: str, key: str) -> Shape | None:
        """The shape of the maker's probe whose `name_key` is `key`: a name goes before a pattern. None: no row fits."""
        named = self._names.get((maker, key))
        return named or next((row.shape for row in self._patterns.get(maker, ()) if row.pattern.fits(key)), None)

    def has_name(self, key: str) -> bool:
        """Whether some maker's probe has a row of its own."""
        return any((maker, key) in self._names for maker in MAKERS)

    @property
    def patterns(self) -> "ProbeTable":
        """The table without the rows of single names."""
        return ProbeTable(tuple(row for row in self.rows if not row.pattern.is_name))

    @property
    def digest(self) -> str:
        """Digest of what the rows mean."""
        return digest(sorted((row.maker, row.pattern.text, row.shape) for row in self.rows))

    @cached_property
    def _names(self) -> dict[tuple[str, str], Shape]:
        return {(row.maker, row.pattern.text): row.shape for row in self.rows if row.pattern.is_name}

    @cached_property
    def _patterns(self) -> dict[str, tuple[ProbeRow, ...]]:
        by_maker: dict[str, tuple[ProbeRow, ...]] = {}
        for row in self.rows:
            if not row.pattern.is_name:
                by_maker[row.maker] = (*by_maker.get(row.maker, ()), row)
        return by_maker


@cache
def shipped_probes() -> ProbeTable:
    """The table that is part of this package."""
    return read_probe_tables([Path(str(files("pipeline.labels") / "probes.csv"))])


@dataclass(frozen=True)
class Probes:
    """The shipped table, and the user's rows, which go before it."""

    shipped: ProbeTable = field(default_factory=shipped_probes)
    own: ProbeTable = ProbeTable()

    def own_shape(self, maker: str | None, name: str) -> Shape | None:
        """The shape by the user's rows."""
        return self.own.shape_of(maker or OTHER_MAKER, name_key(name))

    def shape_of(self, maker: str | None, name: str) -> Shape | None:
        """The shape of a probe by the maker's rows; of another maker or none, if all makers agree.

        All makers agree if each that has a row for the name gives it the same shape, and if it is the name of a row or
        at least two makers have patterns that it fits.
        """
        key = name_key(name)
        if own := self.own_shape(maker, name):
            return own
        if maker is not None:
            return self.shipped.shape_of(maker, key)
        shapes = list(self.by_maker(name).values())
        known = len(shapes) > 1 or self.own.has_name(key) or self.shipped.has_name(key)
        return shapes[0] if known and len(set(shapes)) == 1 else None

    def by_maker(self, name: str) -> dict[str, Shape]:
        """The shape that a probe of this name has at each maker that has a row for it."""
        key = name_key(name)
        found = {maker: self.own.shape_of(maker, key) or self.shipped.shape_of(maker, key) for maker in MAKERS}
        return {maker: shape for maker, shape in found.items() if shape}


def probes_for(mapping: Path, settings: Labels) -> Probes:
    """The shipped table and the user's rows: the CSVs with the columns of probes in the folder `mapping`.

    Raises as `read_probe_tables`.
    """
    return Probes(shipped_probes(), own_probes(mapping, settings))


def own_probes(mapping: Path, settings: Labels) -> ProbeTable:
    """The user's rows: empty if `mapping` is no folder, or if no label of `settings` comes from probes.

    Raises as `read_probe_tables`. The shipped table is not read, so that definitions load quickly.
    """
    wanted = mapping.is_dir() and any(isinstance(source, ProbeSource) for source in settings.sources)
    found = csv_files_in(_NAME, mapping) if wanted else []
    return read_probe_tables([path for path in found if is_probe_table(path)])


def is_probe_table(path: Path) -> bool:
    """Whether the CSV at `path` is a table of probes and not of study groups."""
    return has_columns("Table", path, ("name", "shape"))


def read_probe_tables(paths: Iterable[Path]) -> ProbeTable:
    """The rows of the CSVs at `paths` as one table.

    A row whose shape begins with `?` counts as absent. Raises `UserError`, naming file and line, as `read_csv` does and
    for an unknown maker or shape, a name that is no pattern, and two rows that contradict each other.
    """
    rows = (row for path in paths for row in read_csv(_NAME, path, COLUMNS, NOTES))
    return ProbeTable(tuple(_row(row) for row in rows if not row.cells["shape"].startswith(NOT_REVIEWED)))


def _row(row: Row) -> ProbeRow:
    maker = maker_of(row.cells["manufacturer"])
    if maker is None and row.cells["manufacturer"]:
        raise UserError(
            f"{row.location}: manufacturer {row.cells['manufacturer']!r} is none of {', '.join(MAKERS)}; leave it "
            "empty for files of another maker or of none."
        )
    shape = shape_in(row)
    try:
        pattern = pattern_of(row.cells["name"].removeprefix("'"), maker)
    except ValueError as error:
        raise UserError(f"{row.location}: name {row.cells['name']!r} {error}.") from None
    return ProbeRow(maker or OTHER_MAKER, pattern, shape, row.location)


def _contradict(row: ProbeRow, other: ProbeRow) -> bool:
    """Whether two names or two patterns of one maker give some name two shapes."""
    return (
        row.maker == other.maker
        and row.shape != other.shape
        and row.pattern.is_name == other.pattern.is_name
        and row.pattern.meets(other.pattern)
    )
