"""Datagram services as sans-I/O protocols: the server that gives them a socket."""
