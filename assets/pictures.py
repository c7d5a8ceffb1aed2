"""How a picture is shown in Dagster.

Belongs here: a PNG inline, as metadata carries it. Not here: drawing.
"""

import base64
from pathlib import Path


def data_url(path: Path) -> str:
    """The PNG at `path` as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
