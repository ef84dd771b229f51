"""What a build keeps beside the cube, so that it can go on and nobody disturbs it.

In and out: small documents in ``X.build``.
``claims`` says whose target it is, ``receipts`` what is finished, ``presence`` who is at work on it.
"""
