"""Effects: each module hides one outside thing (HTTP, a database, a folder, the clock, the log)."""
