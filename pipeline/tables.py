"""The archive tables: names, columns, and what one row is; shared by writers, readers and Dagster's column schemas.

`Store.tables` holds DICOM_INDEX, REJECTED_FILES, DELETED_FILES and PATIENT_SPLITS, which all recipes share. The others
depend on a recipe and are in its `Experiment.tables`.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.files import digest, read_table, write_table
from pipeline.label_fields import NUMBER_FIELDS, POOLED, TEXT_FIELDS
from pipeline.mirrored import read_if_intact
from pipeline.recipe import Recipe
from pipeline.store import Store

_MADE_BY = b"sonotag.made_by"
"""Key of a file's schema metadata: the recipe that wrote it, and a digest of each section that decided its rows."""
_NOT_IN_ROWS = {"labels": {"largest_unmapped_share"}, "archive": {"description_patients"}}
"""Fields of a section that decide what is reported or published, but change no row."""


def column(name: str, kind: pa.DataType, description: str, nullable: bool = False) -> pa.Field:
    """A column with a description of its content."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


@dataclass(frozen=True)
class Table:
    """One archive table: its file name without `.parquet`, what one row is, its columns."""

    name: str
    row: str
    schema: pa.Schema
    sections: tuple[str, ...] = ()
    """Sections of the recipe that decide its rows, whose settings are compared when it is read."""
    not_in_rows: frozenset[str] = frozenset()
    """Further fields of these sections that change none of its rows."""

    def path(self, tables: Path) -> Path:
        """The path of the table in the folder `tables`."""
        return tables / f"{self.name}.parquet"

    def write(self, tables: Path, rows: pa.Table, recipe: Recipe | None = None) -> None:
        """Write `rows` whole or not at all, with the settings of `recipe` that made them.

        Raises `pa.ArrowInvalid` if they do not fit the schema.
        """
        rows = rows.select(self.schema.names).cast(self.schema)
        if recipe is not None:
            made_by = {"recipe": recipe.name, "digests": self._digests(recipe)}
            rows = rows.replace_schema_metadata({_MADE_BY: json.dumps(made_by)})
        write_table(self.path(tables), rows)

    def read(self, tables: Path, recipe: Recipe | None = None) -> pa.Table:
        """Read the table.

        Raises `UserError` if no run has written it yet, if other settings than those of `recipe` made it, or if it
        lacks a column.
        """
        path = self.path(tables)
        if not path.is_file():
            raise UserError(f"{path} does not exist yet: run the job that writes it first (`ingest` for tables).")
        rows = read_table(path)
        if recipe is not None:
            self._refuse_other_settings(path, rows.schema, recipe)
        lacking = [name for name in self.schema.names if name not in rows.column_names]
        if lacking:
            raise UserError(
                f"{path} has no column {lacking[0]!r}: another recipe or version wrote it, run the job `ingest` again."
            )
        return rows

    def _digests(self, recipe: Recipe) -> dict[str, str]:
        sections = ((name, getattr(recipe, name), _NOT_IN_ROWS.get(name, set())) for name in self.sections)
        return {
            name: digest(section.model_dump(mode="json", exclude=without | self.not_in_rows))
            for name, section, without in sections
        }

    def _refuse_other_settings(self, path: Path, schema: pa.Schema, recipe: Recipe) -> None:
        written = (schema.metadata or {}).get(_MADE_BY)
        if written is None:
            raise UserError(f"{path} does not name the settings that made it: run the job `ingest` again.")
        made_by, wanted = json.loads(written), self._digests(recipe)
        other = [name for name, value in wanted.items() if made_by["digests"].get(name) != value]
        if other:
            raise UserError(
                f"{path} was made with other settings ({', '.join(other)}) than the recipe {recipe.name} has now: run "
                f"the job `ingest` with the recipe {recipe.name} first."
            )


_text, _count, _number = pa.string(), pa.int64(), pa.float64()

LABEL_FIELDS = pa.schema(
    [
        column(field.column, kind, field.description, nullable=True)
        for kind, fields in ((_text, TEXT_FIELDS), (_number, NUMBER_FIELDS))
        for field in fields.values()
    ]
)
"""The columns of DICOM_INDEX that label sources of kind `values` and `bins` read."""

DICOM_INDEX = Table(
    "dicom_index",
    "one record: an SOP instance of a modality that the recipe names, whose header was read",
    pa.schema(
        [
            column(
                "file_id",
                _text,
                "id of the file everywhere outside the private folder; `pipeline.archive locate` finds it",
            ),
            column("sop_instance", _text, "keyed pseudonym of SOPInstanceUID (0008,0018)"),
            column("series", _text, "keyed pseudonym of SeriesInstanceUID (0020,000E)", nullable=True),
            column("study", _text, "keyed pseudonym of StudyInstanceUID (0020,000D)", nullable=True),
            column("patient", _text, "keyed pseudonym of the patient, the unit of every split"),
            column("patient_from", _text, "what identified the patient: patient_id, study, series or nothing"),
            column("sop_class", _text, "SOPClassUID (0008,0016)", nullable=True),
            column("transfer_syntax", _text, "TransferSyntaxUID (0002,0010)", nullable=True),
            column("photometric", _text, "PhotometricInterpretation (0028,0004)", nullable=True),
            column("rows", _count, "Rows (0028,0010), pixels"),
            column("columns", _count, "Columns (0028,0011), pixels"),
            column("frames", _count, "NumberOfFrames (0028,0008), 1 if absent"),
            column("manufacturer", _text, "Manufacturer (0008,0070)", nullable=True),
            column("model", _text, "ManufacturerModelName (0008,1090)", nullable=True),
            column("transducer_type", _text, "TransducerType (0018,6031)", nullable=True),
            column("transducer_data", _text, "TransducerData (0018,5010), values joined by a backslash", nullable=True),
            column(
                "study_description",
                _text,
                "the first field of the recipe's archive.descriptions that the header states, by default "
                "StudyDescription (0008,1030); null if absent or too rare",
                nullable=True,
            ),
            column("described_by", _text, "keyword of the field that study_description is from", nullable=True),
            column(
                "burned_in",
                pa.bool_(),
                "BurnedInAnnotation (0028,0301) is YES: the header states that the pixels contain text",
            ),
            *LABEL_FIELDS,
            column("unreadable_fields", _text, "fields that could not be read, comma-separated; mostly empty"),
        ]
    ),
)

_REJECTION = [
    column("level", _text, "file or frame"),
    column("id", _text, "file id; for a frame, file id, colon, frame number from 0"),
    column("reason", _text, "reason code"),
    column("detail", _text, "one line, without identifiers"),
]
REJECTED_FILES = Table("rejected_files", "one archive file without a record", pa.schema(_REJECTION))
REJECTED_FRAMES = Table("rejected_frames", "one selected frame without an image", pa.schema(_REJECTION))
QUARANTINE = Table("quarantine", "one rejection, of a file or of a frame", pa.schema(_REJECTION))

UNMAPPED_DESCRIPTIONS = Table(
    "unmapped_descriptions",
    "one study description that the study groups lack",
    pa.schema(
        [
            column("study_description", _text, "the description; empty if the files have none"),
            column("images", _count, "records that carry it"),
            column("patients", _count, "patients that carry it"),
            column("described_by", _text, "fields it is from, if not StudyDescription alone", nullable=True),
            column("suggested_groups", _text, "the first suggestion; empty: in no group", nullable=True),
            column("reason", _text, "why these groups, or why none; a suggestion is no review", nullable=True),
            column("other_suggestions", _text, "further groups, each with its reason", nullable=True),
        ]
    ),
)

UNMAPPED_PROBES = Table(
    "unmapped_probes",
    "one name of a probe that neither its maker's conventions nor the user's rows know",
    pa.schema(
        [
            column("manufacturer", _text, "its maker, or Manufacturer (0008,0070) of a maker that no table has"),
            column("model", _text, "ManufacturerModelName (0008,1090), several separated by commas"),
            column("name", _text, "its name in TransducerData (0018,5010); empty if that holds no name"),
            column("images", _count, "records that name it and do not state its shape otherwise"),
            column("patients", _count, "patients with such records"),
            column("suggested_shape", _text, "shape by names or pictures; not a review", nullable=True),
            column("why", _text, "what the suggestion rests on", nullable=True),
        ]
    ),
)

DOUBTFUL_LABELS = Table(
    "doubtful_labels",
    "one study whose pixels contradict the groups of its tags, the most doubtful first",
    pa.schema(
        [
            column("study", _text, "keyed pseudonym of StudyInstanceUID; a row for it decides its groups"),
            column("patient", _text, "keyed pseudonym of the patient"),
            column("in_doubt", _text, "groups that the study has by tags or by pixels alone, the most doubtful first"),
            column("tags_say", _text, "its groups by tags"),
            column("pixels_say", _text, "its groups with those in doubt reversed; not a review"),
            column("probability", _number, "that it has the first group in doubt, by models of other patients' pixels"),
            column("images", _count, "its images in the cache"),
            column("study_description", _text, "its description; null if absent or too rare", nullable=True),
            column("score", _number, "sum of the margins of the groups in doubt, by which studies are ranked"),
        ]
    ),
)

LABEL_CHANGES = Table(
    "label_changes",
    "one record whose labels the newest version of the user's tables changed",
    pa.schema(
        [
            column("sop_instance", _text, "keyed pseudonym of SOPInstanceUID"),
            column("study_description", _text, "its description; null if absent or too rare", nullable=True),
            column("before", _text, "its labels by the version before, and in brackets why some are open"),
            column("after", _text, "its labels by the newest version"),
        ]
    ),
)

LABEL_REPORT = Table(
    "label_report",
    "one label of the pool, and what it goes with beside the anatomy; the unit is the patient",
    pa.schema(
        [
            column("label", _text, "the label"),
            column("images", _count, "images of the pool that have it"),
            column("patients", _count, "patients with such an image"),
            column("patients_without", _count, "patients who are known to lack it in all images"),
            column("train_patients", _count, "of its patients, those in train"),
            column("val_patients", _count, "of its patients, those in val"),
            column("folders", _count, "first-level folders of the archive that its patients are from"),
            column("machines", _count, "machines (maker and model) that its patients are from"),
            column("folder", _count, "the folder of most of its patients: 1 has the most patients", nullable=True),
            column("folder_share", _number, "share of its patients in that folder", nullable=True),
            column("folder_share_without", _number, "share of the patients without it in that folder", nullable=True),
            column("machine", _text, "the machine of most of its patients; null if headers name none", nullable=True),
            column("machine_share", _number, "share of its patients at that machine", nullable=True),
            column("machine_share_without", _number, "share of patients without it at that machine", nullable=True),
            *(
                column(f"{factor}_{name}", _number, what.format(factor), nullable=True)
                for factor in ("folder", "maker", "machine", "probe", "depth")
                for name, what in (
                    ("v", "bias-corrected Cramér's V between label and {}"),
                    ("chance", "its 99 % quantile after shuffling labels across patients ({})"),
                )
            ),
            column("strongest", _text, "what has the greatest V", nullable=True),
            column("flags", _text, "absent, too rare, one folder, one machine, follows …", nullable=True),
        ]
    ),
)

ARCHIVE = "archive"
"""Value of `problem` in `FROZEN_SCORES`: the archive's own labels."""
NEIGHBOURS, LOGISTIC, MASKS, MEAN_MASK = "nearest neighbours", "logistic regression", "linear masks", "mean mask"
"""Values of `method` in `FROZEN_SCORES`: questions are scored by the first two, segmentations by the others."""
FROZEN_SCORES = Table(
    "frozen_scores",
    "the score of one encoder's frozen features, or of a control's, by one method at one share of the training images",
    pa.schema(
        [
            column("problem", _text, "a task, or archive: the pool's own labels"),
            column("split", _text, "images that are scored: val, by which to choose, or test, to report"),
            column("metric", _text, "auc, the mean over questions, or dice"),
            column("features", _text, "name of the method or variant of the encoder, or a control"),
            column("backbone", _text, "its backbone; null for a control", nullable=True),
            column("seed", _count, "its pretraining seed; null for a control", nullable=True),
            column("method", _text, "what was fitted on the features, or the control's constant"),
            column("fraction", _number, "share of the training images on which it was fitted"),
            column("draws", _count, "random subsets of that share, over which the score is the mean"),
            column(
                "group_by",
                _text,
                "machine, source, or source left out (no image of it was fitted); null: all images of the split",
                nullable=True,
            ),
            column(
                "group",
                _text,
                "the machine; the source: of the archive a folder's number by patients, 1 has the most; 'N others'",
                nullable=True,
            ),
            column("images", _count, "images that are scored"),
            column("patients", _count, "their patients"),
            column("questions", _count, "questions with both answers among them; null of masks", nullable=True),
            column("score", _number, "the metric; null if undefined: one answer alone, or few patients", nullable=True),
            column("low", _number, "lower end of the 95 % interval over patients", nullable=True),
            column("high", _number, "its upper end", nullable=True),
            column(
                "resampled",
                pa.list_(pa.float32()),
                "the score in each resample of patients, the same in all rows of a problem, split and group",
            ),
            column("fingerprint", _text, "digest of features, images, truth and code; equal ones are not scored again"),
        ]
    ),
)

EMBEDDINGS = Table(
    "embeddings",
    "one image of the pretraining pool as one encoder represents it",
    pa.schema(
        [
            column("backbone", _text, "backbone of the encoder"),
            column("encoder", _text, "name of its method or variant"),
            column("seed", _count, "its pretraining seed"),
            column("sop_instance", _text, "keyed pseudonym of SOPInstanceUID"),
            column("frame", _count, "frame number, from 0"),
            column("patient", _text, "keyed pseudonym of the patient"),
            column("split", _text, "train or val"),
            column("x", pa.float32(), "position on the encoder's map (t-SNE): near images are similar, scales differ"),
            column("y", pa.float32(), "the same, upwards"),
            column(
                "vector",
                pa.list_(pa.float32()),
                "mean feature of the last level on its first principal directions, at most 256, not centred: lengths, "
                "angles and cosine similarities stay",
            ),
            column("fingerprint", _text, "digest of encoder, images and code; equal ones are not computed again"),
        ]
    ),
)

PATIENT_SPLITS = Table(
    "patient_splits",
    "one patient and its side of the split",
    pa.schema([column("patient", _text, "keyed pseudonym"), column("split", _text, "train or val")]),
)


def _label_columns(names: tuple[str, ...]) -> list[pa.Field]:
    return [column(name, pa.int8(), f"1 if the header gives the label {name}, else 0", nullable=True) for name in names]


def weak_labels_table(label_names: tuple[str, ...]) -> Table:
    """`weak_labels` with one 0/1 column per label, in the label space's order; null if unknown."""
    return Table(
        "weak_labels",
        "one record and its weak labels",
        pa.schema(
            [
                column("sop_instance", _text, "keyed pseudonym of SOPInstanceUID"),
                column("status", _text, "labelled, or which label source leaves it open: in_no_group, unknown_probe …"),
                *_label_columns(label_names),
            ]
        ),
        sections=("labels",),
    )


IMAGES = Table(
    "images",
    "one image of the cache: a frame of a record",
    pa.schema(
        [
            column("sop_instance", _text, "keyed pseudonym of SOPInstanceUID"),
            column("frame", _count, "frame number, from 0"),
            column("patient", _text, "keyed pseudonym of the patient"),
            column("shard", _text, "file of the cache that holds its pixels"),
            column("position", _count, "row within that shard"),
            column("image_digest", _text, "SHA-256 of the grey pixels at the recipe's size"),
            column("source_digest", _text, "SHA-256 of the frame's grey pixels as decoded, before cropping"),
            column("cropped_by", _text, "how the insonated area was found: regions or detected; whole: not cropped"),
            column("row_spacing_mm", pa.float64(), "millimetres between rows of the cached image", nullable=True),
            column("column_spacing_mm", pa.float64(), "millimetres between its columns", nullable=True),
        ]
    ),
    sections=("images", "archive"),
    not_in_rows=frozenset({"descriptions"}),
)

DELETED_FILES = Table(
    "deleted_files",
    "one archive file that an earlier run read and that no longer exists",
    pa.schema(
        [
            column("file_id", _text, "id of the file"),
            column("sop_instance", _text, "keyed pseudonym of its SOPInstanceUID, of a record", nullable=True),
        ]
    ),
)

NEAR_DUPLICATES = Table(
    "near_duplicates",
    "two nearly identical images of different patients",
    pa.schema(
        [
            column("pair", _text, "name of the pair, by which a reviewer clears it"),
            column("sop_instance", _text, "keyed pseudonym of the first image's instance"),
            column("frame", _count, "its frame number, from 0"),
            column("patient", _text, "its patient"),
            column("other_sop_instance", _text, "keyed pseudonym of the second image's instance"),
            column("other_frame", _count, "its frame number, from 0"),
            column("other_patient", _text, "its patient"),
            column("likeness", _number, "maximum correlation over all crops, after subtracting coarse brightness"),
        ]
    ),
)


def pretraining_pool_table(label_names: tuple[str, ...]) -> Table:
    """`pretraining_pool`: the images every method trains on, with split and labels."""
    return Table(
        "pretraining_pool",
        "one image that every pretraining method trains or validates on",
        pa.schema(
            [
                *[IMAGES.schema.field(name) for name in POOLED],
                column("split", _text, "train or val"),
                *_label_columns(label_names),
            ]
        ),
        sections=("labels", "images", "archive", "cohort"),
    )


SHARED = frozenset({"dicom_index", "rejected_files", "deleted_files"})
"""Assets of all recipes of a store; the others belong to one recipe."""
_FIXED = {
    table.name: table
    for table in (
        *(DICOM_INDEX, REJECTED_FILES, DELETED_FILES, REJECTED_FRAMES, NEAR_DUPLICATES, QUARANTINE, PATIENT_SPLITS),
        *(UNMAPPED_DESCRIPTIONS, UNMAPPED_PROBES, DOUBTFUL_LABELS, LABEL_CHANGES, LABEL_REPORT, FROZEN_SCORES),
        EMBEDDINGS,
    )
} | {"image_cache": IMAGES}
"""Tables by asset whose columns do not depend on the recipe."""


def path_of(asset: str, store: Store, recipe: Recipe) -> Path:
    """The file of the table of `asset`, whether it exists or not."""
    table = _table_of(asset, recipe)
    experiment = store.experiment(recipe.name)
    if table is None:
        return experiment.task_images(asset.removesuffix("_images"))
    return table.path(store.tables if asset in SHARED or table is PATIENT_SPLITS else experiment.tables)


def read_table_of(asset: str, store: Store, recipe: Recipe) -> pa.Table:
    """The table of `asset`: one of the archive's tables, or a task's images.

    Raises `UserError` as `Table.read`; `DamagedError` for a damaged file.
    """
    path, table = path_of(asset, store, recipe), _table_of(asset, recipe)
    if table is not None:
        return table.read(path.parent, recipe if table.sections else None)
    if not path.is_file():
        raise UserError(f"{path} does not exist yet: materialize {asset} first (job `finetune` does).")
    return read_table(path)


def _table_of(asset: str, recipe: Recipe) -> Table | None:
    """The kind of table that `asset` writes; None for a task's images. Raises `KeyError` if it writes none."""
    if asset in {f"{task}_images" for task in recipe.downstream.tasks}:
        return None
    by_labels = {"weak_labels": weak_labels_table, "pretraining_pool": pretraining_pool_table}
    return by_labels[asset](recipe.labels.names) if asset in by_labels else _FIXED[asset]


def read_pool(store: Store, recipe: Recipe) -> pa.Table:
    """The pretraining pool of `recipe`; raises `UserError` if there is none, or if other settings made it."""
    return read_table_of("pretraining_pool", store, recipe)


def pool_or_empty(recipe: Recipe, earlier: Store) -> pa.Table:
    """The pretraining pool that an `earlier` run made; empty if none was made in this store.

    Raises `UserError` if it was made, and lacks training or validation images.
    """
    if not path_of("pretraining_pool", earlier, recipe).exists():
        return pretraining_pool_table(recipe.labels.names).schema.empty_table()
    pool = read_pool(earlier, recipe)
    refuse_incomplete(pool)
    return pool


def read_of_every_recipe(table: Table, earlier: Store) -> pa.Table:
    """The rows of `table` of every recipe, as `earlier` runs left them, by recipe; a damaged file has none."""
    paths = sorted(earlier.root.glob(f"experiments/*/tables/{table.name}.parquet"))
    found = [read_if_intact(path, partial(read_table, columns=table.schema.names)) for path in paths]
    return pa.concat_tables([table.schema.empty_table(), *(rows.cast(table.schema) for rows in found if rows)])


def missing_sides(pool: pa.Table) -> list[str]:
    """Sides of the split, "training" or "validation", of which the pool has no image; both if it is empty."""
    present = pool["split"].unique().to_pylist()
    return [name for side, name in (("train", "training"), ("val", "validation")) if side not in present]


def refuse_incomplete(pool: pa.Table) -> None:
    """Raise `UserError` if the pool lacks training or validation images."""
    if sides := missing_sides(pool):
        raise UserError(
            f"The pretraining pool has no {' and no '.join(sides)} image: fill in unmapped_descriptions.csv in the "
            "private folder of the store, put it into the folder that SONOTAG_STUDY_GROUPS names, and run the job "
            "`ingest` again; its check pool_can_train names what else may be missing."
        )


def image_digest(pool: pa.Table) -> str:
    """Digest of the pool's images and their sides, in the pool's order; labels do not count."""
    return digest(pool["image_digest"].to_pylist(), pool["split"].to_pylist())


def label_digest(pool: pa.Table) -> str:
    """Digest of the pool's label space and of each image's labels, in the pool's order; pixels do not count."""
    names = [name for name in pool.column_names if name not in {*POOLED, "split"}]
    return digest(names, [pool[name].to_pylist() for name in names])
