"""Measurements.

Fastnet's twins against each other (pytest bench), and against rivals (python -m bench.run).
"""
