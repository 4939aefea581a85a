"""Preference games and policy gradients small enough to be exact, in numpy: what the trainers are checked by."""
