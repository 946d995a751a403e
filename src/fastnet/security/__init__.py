"""Keys, message authentication codes, challenge-response tokens, certificates."""
