"""Raw mode: the bytes of one file, half-close, and the final message of the peer."""
