"""What the sender reads: folders, files and standard input."""
