"""Sweeps: a search space over settings, a study that many workers share, and what came out of it.

The search itself is Optuna's. What a trial does is given to this room as a callable, so that it knows nothing of
commands, environments or agents; commands and results import it.
"""
