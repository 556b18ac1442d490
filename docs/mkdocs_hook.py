"""A hook of mkdocs for what lies outside `docs/`: pictures are taken along, links to files become their names."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_PICTURES = "benchmarks/results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pictures of the benchmarks to the site."""
    root = Path(config.config_file_path).parent
    for picture in (root / _PICTURES).glob("*.png"):
        name = str(picture.relative_to(root))
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Rewrites references to files above `docs/`, which a site does not hold."""
    markdown = markdown.replace(f"(../{_PICTURES}/", f"({_PICTURES}/")
    return re.sub(r"(?<!!)\[([^\]]*)\]\(\.\./([^)]+)\)", r"\1 (`\2`)", markdown)
