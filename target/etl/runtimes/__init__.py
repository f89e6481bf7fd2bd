"""Where an ETL runs: in this process, in child processes, in containers, or on somebody else's server."""
