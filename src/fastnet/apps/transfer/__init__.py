"""Files over a connection: events and reports, extents, and one module a wire format."""
