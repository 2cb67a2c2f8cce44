"""The commands of `python -m archives`, by what they are for; each module adds its own."""
