"""One running server: select its engine and backend, plan it, run it, reload it."""
