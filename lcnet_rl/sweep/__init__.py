"""Sweeps: a search space over settings, a study that many workers share, and when a trial is hopeless.

The search itself is Optuna's. What a trial does is given to this room as a callable, so that it knows nothing of
commands, environments or agents; commands import it. What came out of a study is compared in ``comparison``.
"""
