CREATE INDEX worker_version_name ON dbosflow.worker (version_name) WHERE state = 'live' AND version_name IS NOT NULL;
