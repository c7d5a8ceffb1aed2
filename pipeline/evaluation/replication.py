"""`python -m pipeline.evaluation.replication FOLDER` computes the tables and figures of FOLDER.md from FOLDER alone."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.command import command
from pipeline.errors import UserError
from pipeline.evaluation.dataset_table import dataset_table
from pipeline.evaluation.publication import Publication, read_publication
from pipeline.evaluation.report import Report, compute_report
from pipeline.evaluation.report_figures import boxplots, forest_plot, save_all
from pipeline.files import write_text
from pipeline.recipe import Recipe

_TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@command
def main() -> None:
    """Fill the tables of the document beside the folder, and draw its figures into the folder."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluation.replication", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="such as docs/replication; the document is docs/replication.md")
    replicate(parser.parse_args().folder)


def replicate(folder: Path) -> None:
    """Fill the tables of `folder`.md and draw the figures into `folder`, from the numbers in `folder`.

    Raises `UserError` if `folder` is not a publication, or if the document names an unknown table.
    """
    publication = read_publication(folder)
    evidence = publication.evidence
    report = compute_report(evidence)
    document = folder.parent / f"{folder.name}.md"
    written = [document] if document.is_file() else []
    for path in written:
        write_text(path, filled(path.read_text(encoding="utf-8"), tables(publication, report)))
    boxes = boxplots(_with_first_seed(evidence.recipe), evidence.predictions, evidence.constants, folder)
    forest = forest_plot(evidence.recipe, report.differences, folder)
    for path in (*written, *save_all(boxes), *save_all(forest)):
        print(path)


def _with_first_seed(recipe: Recipe) -> Recipe:
    """The recipe with its first fine-tuning seed alone: figures of the others would look alike."""
    tuned = recipe.downstream.model_copy(update={"seeds": recipe.downstream.seeds[:1]})
    return recipe.model_copy(update={"downstream": tuned})


def tables(publication: Publication, report: Report) -> dict[str, str]:
    """Every table in Markdown by name: `data` (paper Table 1), and each chapter of the report by its anchor."""
    chapters = {chapter.anchor: chapter.body() for chapter in report.chapters}
    return {"data": dataset_table(publication.data_sets).markdown(), **chapters}


def filled(document: str, found: Mapping[str, str]) -> str:
    """`document` with the text between each `<!-- table: NAME -->` and `<!-- end -->` replaced by the table NAME."""
    for _, name, body, _ in _TABLE.findall(document):
        if name not in found:
            raise UserError(f"The document names an unknown table {name!r}; choose one of {', '.join(found)}.")
        if "<!-- table:" in body:  # everything up to the end of the next table would be replaced
            raise UserError(f"The document's table {name!r} has no line `<!-- end -->` before the next table.")
    return _TABLE.sub(lambda match: f"{match[1]}\n{found[match[2]].rstrip()}\n\n{match[4]}", document)


if __name__ == "__main__":
    raise SystemExit(main())
