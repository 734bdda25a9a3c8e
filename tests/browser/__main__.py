"""Pages in Chromium: ``python -m tests.browser [NAME ...] [--screenshots DIRECTORY]``.

The chat of ``dbosflow demo --web``; and a page with the real ``useChat`` of npm's ``@ai-sdk/react``, before a chat of
``dbosflow.http.adapters``. Playwright comes from a package index into an environment of its own, the packages of npm go
into a cache in the home directory, and Chromium comes from Debian, by ``apt-get``, if it is not there. Not a part of
``.ci/run``; ``tests/http/test_chat.py`` and ``test_ui_messages.py`` have samples, with clients that are no browsers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

from tests.browser.use_chat.bundle import bundled

ROOT = Path(__file__).parents[2]


def chromium() -> str:
    """The path of Chromium, which is installed if it is not there."""
    if shutil.which("chromium") is None:
        subprocess.run(["apt-get", "install", "-qq", "-y", "chromium"], check=True)
    return str(shutil.which("chromium"))


def main() -> int:
    """Runs the scenarios where Playwright is; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="dbosflow-browser-") as directory:
        venv.create(directory, symlinks=True)
        python = Path(directory) / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq"]
        subprocess.run([*pip, "playwright>=1.50"], check=True)
        own = f"python{sys.version_info.major}.{sys.version_info.minor}"
        # The rest comes from the environment of this process, after that.
        libraries = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
        (Path(directory) / "lib" / own / "site-packages" / "rest.pth").write_text(libraries.replace(os.pathsep, "\n"))
        command = [str(python), "-m", "tests.browser.inside", chromium(), str(bundled()), *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
