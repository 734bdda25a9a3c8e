"""Makes the page with ``useChat``, of packages of npm that go into a cache outside of the tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = ("ai@7.0.173", "@ai-sdk/react@4.0.177", "react@19.3.1", "react-dom@19.3.1", "esbuild@0.28.2")
CACHE = Path.home() / ".cache" / "dbosflow" / "browser"


def bundled() -> Path:
    """The directory with the page, as ``page.js``. Needs npm."""
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "install", "--no-save", "--silent", "--prefix", CACHE, *PACKAGES], check=True)
    shutil.copy(HERE / "page.jsx", CACHE)
    options = ("--bundle", "--jsx=automatic", "--minify", "--log-level=warning", "--outfile=page.js")
    subprocess.run(["npx", "esbuild", "page.jsx", *options], cwd=CACHE, check=True)
    return CACHE
