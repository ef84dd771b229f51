"""``python -m cube`` is the command ``cube``."""

from cube.cli.main import main

main()
