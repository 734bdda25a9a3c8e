"""What people install, as opposed to the checkout that the other tests run in."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

from dbosflow._store import migrate

ROOT = Path(__file__).parents[2]

MIGRATE = """
import sys, dbosflow
from dbosflow._store.migrate import migrate
print(dbosflow.__file__)
print(migrate(sys.argv[1])[1])
"""


def run(*command: str | Path, directory: Path) -> str:
    return subprocess.run(command, cwd=directory, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_an_installed_package_migrates_without_the_checkout(tmp_path: Path, empty_database_url: str) -> None:
    """The migrations travel in the source distribution, and in the wheel that is built from it."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, directory=ROOT)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, directory=unpacked)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        parts = {Path(name).name for name in packed.namelist() if name.startswith("dbosflow/http/page/")}
        assert parts >= {"index.html", "chat.css", "chat.js", "transcript.js", "icon.svg"}
        assert "dbosflow/cli/demo/story.txt" in packed.namelist()

    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps", wheel, directory=tmp_path)
    site_packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", directory=tmp_path).strip()
    )
    # Only what dbosflow depends on comes from the environment of this test, after its own.
    site_packages.joinpath("dependencies.pth").write_text(sysconfig.get_path("purelib"), "utf-8")

    module, revision = run(python, "-I", "-c", MIGRATE, empty_database_url, directory=tmp_path).splitlines()
    assert Path(module).is_relative_to(environment)
    assert revision == migrate.HEAD
