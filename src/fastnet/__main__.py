"""`python -m fastnet` is the `fastnet` command."""

from fastnet.cli import main

main()
