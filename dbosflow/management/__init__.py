"""Management of workflows from outside: ``engine.workflows``.

``listings`` reads, by ``cursors`` from page to page; ``acts`` changes, in ``bulk`` where there are many; ``forks`` lets
a workflow go on from its past; ``explanations`` says what one waits for, by
``causes``; ``transfers`` exports and imports, by ``exporter``, ``importer`` and their ``transfer_format``. ``versions``
lists versions of users' code, and unpins.
"""
