"""One transfer as it runs: listener, connections, sender and receiver."""
