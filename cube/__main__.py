"""``python -m cube`` is the command ``cube``."""

from cube.cli import main

main()
