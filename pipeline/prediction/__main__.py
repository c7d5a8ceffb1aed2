"""`python -m pipeline.prediction MODEL INPUT… --out FOLDER`: apply a fine-tuned model to new DICOM files."""

import argparse
import sys
from pathlib import Path

from pipeline.command import command
from pipeline.errors import UserError
from pipeline.prediction.predict import TABLE, UNLISTED, Summary, list_inputs, predict

_PREDICT = f"""\
Apply a fine-tuned model to new DICOM files. MODEL is a folder written by the job `finetune`, such as
store/experiments/demo/models/resnet50_ce_dcm_thyroid/fraction-1_seed-0; nothing else of the store is needed.

FOLDER/{TABLE} has a row per image: its scores and class, or its mask (a DICOM SEG beside the table), or the reason why
it was flagged and not scored. Every input file has a row. The masks identify the patients, and the table the files:
protect the folder like the images.
"""


@command
def main(arguments: list[str]) -> None:
    """Run the command.

    Flagged images are counted and are no error. Raises `UserError` if a folder cannot be listed.
    """
    options = _parser().parse_args(arguments)
    inputs = list_inputs(options.inputs, options.out)
    summary = predict(options.model, inputs.files, options.out, options.frames_per_cine, _print, inputs.unlisted)
    _print(summary_line(summary))
    _print(f"Written to {options.out / TABLE}.")
    if summary.unlisted:
        raise UserError(
            f"{summary.unlisted} folders cannot be listed, so that their files have no row; the table has a row for "
            f"each such folder, with the reason {UNLISTED}."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.prediction",
        description=_PREDICT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="folder of a fine-tuned model")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="DICOM files and folders of them")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder for table and masks")
    parser.add_argument(
        "--frames-per-cine", type=_count, default=1, metavar="N", help="frames of a cine, evenly spaced; default: 1"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("it must be a whole number from 1")
    return int(text)


def summary_line(summary: Summary) -> str:
    """The counts of a batch in one line."""
    flags = ", ".join(f"{count} {reason}" for reason, count in summary.flagged.items())
    return (
        f"{summary.files} files, {summary.images} images: {summary.scored} scored, "
        f"{sum(summary.flagged.values())} flagged{flags and ': '}{flags}."
    )


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
