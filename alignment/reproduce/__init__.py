"""Tables of papers, made again: `scripts/reproduce.py TABLE`. Recipes at paper scale are in recipes/paper."""
