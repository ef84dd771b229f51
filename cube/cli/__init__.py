"""The command line: parse, one call, print, exit code.

Results go to stdout, progress to stderr.
``main`` is the group; ``build``, ``verify``, ``catalog``, ``storage`` and ``demo`` have the commands, ``options`` and
``machine`` what they share, ``words`` and ``progress`` the texts.
"""
