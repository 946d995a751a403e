"""What is counted and how it is reported. Reads the data plane, never writes it."""
