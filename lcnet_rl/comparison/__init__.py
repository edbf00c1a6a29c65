"""Results beside each other: of run folders that were evaluated, of a study's trials, and what others published.

``records`` is what there is, grouped over seeds, ``kinds`` which run folders are of what, ``frontier`` what no other
beats, ``picture`` how that looks, ``published`` what stands beside it, ``significance`` what is more than chance. It
needs no search: sweeps, results and commands import it, and it imports none of these.
"""
