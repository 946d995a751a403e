"""The chat's terminal: screen, layout, key input and what is shown."""
