"""What a data set is, as checked data.

In: the name of a bundled recipe or a YAML file. Out: a frozen ``Recipe`` (``recipes.recipe``).
``sections`` are its parts, ``reading`` turns YAML into one and names the line of what is wrong, ``patterns`` matches names,
``bundled`` finds the folders that came with the installation. Nothing here opens a patch file or a cube.
"""

WHOLE = "all"
"""The season of a data set that has none."""
