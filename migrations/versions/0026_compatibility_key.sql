ALTER TABLE dbosflow.compatibility ADD PRIMARY KEY (oldest_code);
