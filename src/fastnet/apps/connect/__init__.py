"""Connect client: standard input to a server, and its replies to standard output."""
