"""The launcher: from a command line to one run. Composes the configuration, expands sweeps, chooses the run folder.

Nothing here trains. `entry.main` is what `train.py`, `align train` and `python -m alignment.launch` call.
"""
