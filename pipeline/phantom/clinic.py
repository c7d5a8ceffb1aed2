"""Write the phantom clinic to a folder, atomically: archive, labelled sets, ground truth."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import uuid4

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.phantom.defects import add_defects
from pipeline.phantom.downstream import cases, labelled_sets, write_case, write_manifests
from pipeline.phantom.ground_truth import write_ground_truth
from pipeline.phantom.settings import Phantom
from pipeline.phantom.studies import clinic, write_image
from pipeline.privacy.phantom_marker import CONTENTS, MARKER, contents_digest, is_phantom
from pipeline.progress import Log, Progress, silent

VERSION = 3  # raise it with every change of any byte of the phantom


def make_phantom(folder: Path, seed: int = 0, settings: Phantom | None = None, log: Log = silent) -> None:
    """Write the phantom into `folder`: archive/, downstream/, ground_truth/ and, last, phantom.json.

    `settings` default to those of a recipe. The same seed and settings give the same bytes on any number of cores. A
    folder that already has them in this version is left unchanged; another phantom is replaced. Raises `UserError` if
    `folder` has other contents, including a phantom whose archive has gained or lost files; for a negative seed; and
    for an archive that is too small for its defects.
    """
    if seed < 0:
        raise UserError(f"The phantom's seed {seed} is negative: choose 0 or more.")
    settings = settings or Phantom()
    wanted = {"version": VERSION, "seed": seed, **settings.model_dump(mode="json")}
    if _has_wanted_phantom(folder, wanted):
        log(f"{folder} already has the phantom of seed {seed}.")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    try:
        _fill(unfinished, seed, settings, log)
        write_json(unfinished / MARKER, {**wanted, CONTENTS: contents_digest(unfinished / "archive")})
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _has_wanted_phantom(folder: Path, wanted: dict[str, object]) -> bool:
    """Whether `folder` has the wanted phantom. Raises `UserError` for other contents than a phantom."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not is_phantom(str(folder / "archive")):
        if _is_old_marker(folder / MARKER):
            return False
        raise UserError(f"{folder} has other contents than an unchanged phantom: choose a new or empty folder.")
    return {key: value for key, value in read_json(folder / MARKER).items() if key != CONTENTS} == wanted


def _is_old_marker(marker: Path) -> bool:
    """Whether `marker` is one of an older phantom (versions 1 to 3), which did not state the archive's contents."""
    try:
        stated = read_json(marker)
    except (OSError, ValueError):
        return False
    return isinstance(stated, dict) and CONTENTS not in stated and {"version", "seed"} <= stated.keys()


def _fill(folder: Path, seed: int, settings: Phantom, log: Log) -> None:
    archive, downstream, sets = folder / "archive", folder / "downstream", labelled_sets(settings)
    plans = clinic(settings, seed)
    jobs = [partial(write_image, archive, plan) for plan in plans]
    labelled = [partial(write_case, downstream, case, seed) for case in cases(sets)]
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Progress("phantom", len(jobs) + len(labelled), "images", log) as progress,
    ):
        for _ in pool.map(lambda job: job(), [*jobs, *labelled]):
            progress.advance()
    write_manifests(downstream, sets, seed)
    write_ground_truth(folder / "ground_truth", *add_defects(archive, plans, settings.defects, seed))
