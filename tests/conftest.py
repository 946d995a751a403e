"""Fixtures of all tests. Being here, it also lets a test import the modules beside it, as connect_peers."""
