"""One operating-system process: run servers, signals, logs, daemon, pid file."""
