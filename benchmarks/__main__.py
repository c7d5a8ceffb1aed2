"""`python -m benchmarks` runs all of them and prints one table.

Belongs here: that command. Not here: any measurement.
"""

import tempfile
from pathlib import Path

from benchmarks import ingestion, pretraining
from benchmarks.measure import table
from pipeline.phantom.clinic import make_phantom


def main() -> None:
    """Make a phantom in a temporary folder, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        phantom = Path(folder) / "phantom"
        make_phantom(phantom, say=print)
        rows = [row for module in (ingestion, pretraining) for row in module.measure(phantom, Path(folder) / "work")]
    print(table(rows))


if __name__ == "__main__":
    main()
