"""The workflows of a database as a resource: ``engine.workflows``."""

from __future__ import annotations

from dbosflow.management.acts import Acts
from dbosflow.management.explanations import Explanations
from dbosflow.management.forks import Forks
from dbosflow.management.listings import Listings
from dbosflow.management.priorities import Priorities
from dbosflow.management.reencryption import Reencryption
from dbosflow.management.starts import Starts
from dbosflow.management.transfers import Transfers
from dbosflow.management.versions import Versions


class Workflows(Listings, Starts, Acts, Forks, Explanations, Transfers, Versions, Priorities, Reencryption):
    """The workflows of an engine's database. Use it as ``engine.workflows``.

    Methods come twice: a blocking one for sync code, and its awaitable twin, whose name ends in ``_async``. In a
    workflow's body they raise ``InWorkflowError``: call them in a step.
    """
