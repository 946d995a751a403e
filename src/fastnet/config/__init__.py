"""Configuration: option fields, one server, one process, and the TOML file."""
