"""The command line: parse, one call, print, exit code.

Results go to stdout, progress to stderr.
``main`` has the commands of a build, ``catalog`` and ``storage`` the others, ``options`` what they share, ``words`` and
``progress`` the texts.
"""
