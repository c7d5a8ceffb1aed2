"""Templates of HTML pages that extend `page.html`, whose policy allows this package's style and data URLs alone."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).parent


def page_templates(folder: Path = _HERE) -> Environment:
    """The templates in `folder`, which escape all text; each renders to a whole page with its `title`."""
    pages = Environment(loader=FileSystemLoader([folder, _HERE]), autoescape=True, undefined=StrictUndefined)
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    pages.globals["style"] = Markup(style)  # a file of this package; the policy allows no style with another digest
    pages.globals["style_hash"] = f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}"
    return pages
