"""Templates of HTML pages that extend `page.html`, whose policy allows this package's style and data URLs alone."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).parent


def page_templates(folder: Path = _HERE, style: str = "", script: str = "") -> Environment:
    """The templates in `folder`, which escape all text; each renders to a whole page with its `title`.

    `style` and `script` are added to those that the policy allows; both must be files of a package.
    """
    pages = Environment(loader=FileSystemLoader([folder, _HERE]), autoescape=True, undefined=StrictUndefined)
    style = (_HERE / "style.css").read_text(encoding="utf-8") + style
    for name, text in (("style", style), ("script", script)):
        pages.globals[name] = Markup(text)  # the policy allows no text with another digest
        pages.globals[f"{name}_hash"] = f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
    return pages
