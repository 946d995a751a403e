"""Helpers of the tests: peers, networks, processes and resource checks."""
