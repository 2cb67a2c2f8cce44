"""The commands of `python -m jobs`: what each takes, and what does it."""
