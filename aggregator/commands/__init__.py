"""The commands, one module each; `console.py` is how all of them speak."""
