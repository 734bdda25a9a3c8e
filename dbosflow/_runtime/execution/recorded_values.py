"""Reads recorded values under today's annotations.

What an earlier run recorded has fitted the types of its code: a live run delivers nothing else. So a value that does
not load was recorded by other code. That never fails a workflow: it is a contradiction, and parks the workflow.

The arguments of a start are treated alike, though a start may come from code that never fitted: both cases look the
same from here. A workflow that is parked by mistake can be cancelled; one that failed by mistake has ended for good.
"""

from __future__ import annotations

from inspect import Signature
from typing import TYPE_CHECKING, Any, TypeVar

from dbosflow.failures import load_error
from dbosflow.serde import brief
from dbosflow.tracebacks import printable

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import Run
    from dbosflow._store.step import Recorded
    from dbosflow.failures import Failure
    from dbosflow.serde import Codec

T = TypeVar("T")


def load(run: Run, codec: Codec[T], text: str | None, where: str, record: Recorded | None = None) -> T:
    """A recorded value under today's type. Raises, and blocks the workflow, if it does not fit."""
    try:
        return codec.load(text or "null")
    except Exception as unfit:  # the code of a type of the user's may raise anything
        asked = f"takes {codec.what} at {where} for {codec.shown}"
        raise run.disagree(asked, f"{brief(text or 'null')} ({_reason(unfit)})", record) from unfit


def failure(run: Run, text: str, where: str, record: Recorded | None) -> Failure:
    """A recorded exception. Raises, and blocks the workflow, if its class is missing: a stand-in would differ."""
    found = load_error(text)
    if found.missing is None:
        return found
    asked = f"has {found.missing}, for the error at {where} (import it where the workflow is defined)"
    raise run.disagree(asked, printable(f"{found.type}: {brief(found.message)}"), record)


def arguments(run: Run) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the workflow's function. Raises, and blocks the workflow, if the function does not take them."""
    definition = run.definition
    try:
        return definition.load_arguments(run.arguments_text)
    except Exception as unfit:
        signature = definition.signature.replace(return_annotation=Signature.empty)
        raise run.disagree(f"takes the arguments {signature}", _reason(unfit)) from unfit


def _reason(unfit: Exception) -> str:
    """Why a value does not fit, on one line."""
    return " ".join(str(unfit).split()) or type(unfit).__name__
