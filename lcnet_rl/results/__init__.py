"""The project's results: collected from the committed run folders, written as JSON and as RESULTS.md, and run again.

``rows`` is what there is, ``page`` how it is written, ``plan`` which commands lead to it. Figures come from the files
that ``evaluate`` wrote, commands from ``run.json``: nothing is typed by hand. Only commands import this room.
"""
