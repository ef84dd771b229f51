"""What is seen while pixels pass by: counts, classes, pictures of scenes. Pure.

In: tiles with their place. Out: what the catalog says of them.
``ground`` knows which pixels are the same ground, ``tally`` counts, ``overviews`` and ``blocks`` draw small pictures,
``surveyor`` does all three, ``summary`` is what comes of it.
"""
