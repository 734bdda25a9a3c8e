-- Nothing moves: keys of records and ids of children are made in another form from here on, and those there are stay as they
-- are. A workflow that has records goes on where its code makes the same keys as before, and else is parked as blocked;
-- `dbosflow migrate` and the log of the worker that migrates say how many there are.
COMMENT ON COLUMN dbosflow.step.key IS 'branch path / name # occurrence; what separates is %-escaped in names';
