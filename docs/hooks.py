"""What the site needs besides the pages: the README as its start, and links out of docs/ that lead to the checkout."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The README is the first page; its links are those of a page in ``docs``."""
    text = (ROOT / "README.md").read_text("utf-8")
    text = _LINK.sub(lambda link: f"]({_from_docs(link[1])}{link[2] or ''})", text)
    files.append(File.generated(config, "index.md", content=text))
    return files


def _from_docs(target: str) -> str:
    return target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"


def on_page_markdown(markdown: str, page: Page, **_unused: object) -> str:
    """A link to a file of the checkout that is no page becomes its path: a site has no checkout to lead to."""
    here = posixpath.dirname(page.file.src_uri)

    def shown(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", here, link[1]))
        if target == "README.md":
            return f"](index.md{link[2] or ''})"
        return f"]({link[1]}{link[2] or ''})" if target.startswith("docs/") else "]"

    return _LINK.sub(shown, markdown)
