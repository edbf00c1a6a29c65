"""Results beside each other: of run folders that were evaluated, of a study's trials, and what others published.

``records`` is what there is, grouped over seeds, ``kinds`` which run folders are of what, ``frontier`` what no other
beats, ``published`` what others have, ``standing`` all that is shown of these, ``show`` and ``picture`` how, ``words``
what it is called, ``significance`` what is more than chance. It needs no search: sweeps, results and commands import
it, and it imports none of these.
"""
