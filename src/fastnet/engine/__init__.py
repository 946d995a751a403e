"""Concurrency models: what waits for a socket, and how many at a time."""
