"""Imports the user's modules for commands: by name, or by the path of a file."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbosflow.errors import ConfigurationError
from dbosflow.registry import registry
from dbosflow.workflows import Workflow

if TYPE_CHECKING:
    from types import ModuleType

MODULE_HELP = "a module that defines or imports workflows, like myapp.workflows, or its file, like ./workflows.py"


def load_workflows(*names: str) -> list[ModuleType]:
    """Imports modules, and returns them. A module without any workflow is an error.

    The current directory is searched first, and its ``src``, if there is one.
    """
    _search_here()
    return [_load(name) for name in names]


def load_object(option: str, name: str, example: str) -> Any:
    """The object of ``module:name``, as an option gives it. The module is looked for as those of workflows are.

    Raises:
        ConfigurationError: there is none. ``example`` shows how it is written.
    """
    _search_here()
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        msg = f"{option} {name}: write it as {example}"
        raise ConfigurationError(msg)
    try:
        return getattr(_imported(module), attribute)
    except AttributeError:
        msg = f"{option} {name}: module {module!r} has no {attribute!r}; write it as {example}"
        raise ConfigurationError(msg) from None


def load_codecs(name: str | None) -> Any:
    """The codecs of ``--codecs``: the object, or what it returns if it can be called; ``None`` if none are named."""
    if name is None:
        return None
    found = load_object("--codecs", name, "myapp.secrets:codecs")
    try:
        return found() if callable(found) else found
    except Exception as error:  # the code of the user may raise anything
        msg = f"--codecs {name}: {type(error).__name__}: {error}; -v shows all of it"
        raise ConfigurationError(msg) from error


def _search_here() -> None:
    here = Path.cwd()
    wanted = [str(path) for path in (here, here / "src") if path.is_dir()]
    if sys.path[: len(wanted)] != wanted:
        sys.path[:0] = wanted


def _load(name: str) -> ModuleType:
    known = set(registry.names())
    module = _of_file(Path(name)) if _is_path(name) else _imported(name)
    if not (set(registry.names()) - known or _has_workflow(module)):
        where = f" ({module.__file__})" if module.__file__ else ""
        msg = f"module {name!r}{where} has no workflow: decorate a function with @workflow, or name another module"
        raise ConfigurationError(msg)
    return module


def _is_path(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


def _of_file(path: Path) -> ModuleType:
    """The module of a file or of a package's directory, under the name by which other modules import it."""
    path = path.absolute()
    if not path.exists():
        msg = f"there is no file {str(path)!r}: give the path of a module, or its name, like 'myapp.workflows'"
        raise ConfigurationError(msg)
    parts = [] if path.stem == "__init__" else [path.stem if path.suffix == ".py" else path.name]
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    name = ".".join(parts)
    if not all(part.isidentifier() for part in parts):
        msg = f"{str(path)!r} cannot be imported as {name!r}, which is no module name: name the file like a variable"
        raise ConfigurationError(msg)
    sys.path.insert(0, str(root))
    module = _imported(name)
    found = Path(module.__file__ or (module.__path__[0] if hasattr(module, "__path__") else "")).resolve()
    if path.resolve() not in {found, found.parent}:
        msg = f"{str(path)!r} is module {name!r}, and there is another one of that name ({found}): rename the file"
        raise ConfigurationError(msg)
    return module


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(_why_not(name, error)) from error
        msg = f"there is no module {name!r}, neither in {Path.cwd()} nor among the installed packages"
        raise ConfigurationError(msg) from None
    except (Exception, SystemExit) as error:
        raise ConfigurationError(_why_not(name, error)) from error


def _why_not(name: str, error: BaseException) -> str:
    """The error in a user's module, and its place in the module."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if last.filename.startswith("<") else f" ({last.filename}, line {last.lineno})"
    return f"module {name!r} cannot be imported: {type(error).__name__}: {error}{where}; -v shows all of it"


def _has_workflow(module: ModuleType) -> bool:
    if any(isinstance(value, Workflow) for value in vars(module).values()):
        return True
    definitions = (registry.get(name) for name in registry.names())
    return any(one is not None and one.function.__module__ == module.__name__ for one in definitions)
