"""User interfaces of the chat client: lines, JSON, or a full screen on a terminal."""
