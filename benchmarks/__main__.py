"""`python -m benchmarks` compares with peers; `python -m benchmarks million` indexes 1,000,000 files (6 minutes).

Belongs here: these commands. Not here: any measurement.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks import archive_at_scale, ingestion, pretraining
from benchmarks.measure import figures_table, table
from pipeline.phantom.clinic import make_phantom


def main() -> None:
    """Make a phantom in a temporary folder, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        phantom, work = Path(folder) / "phantom", Path(folder) / "work"
        make_phantom(phantom, say=print)
        if sys.argv[1:] == ["million"]:
            print(figures_table(archive_at_scale.million(phantom, work, print)))
            return
        rows = [row for module in (ingestion, archive_at_scale, pretraining) for row in module.measure(phantom, work)]
    print(table(rows))


if __name__ == "__main__":
    main()
