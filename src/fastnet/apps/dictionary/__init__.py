"""Dictionary client: look words up at a server."""
