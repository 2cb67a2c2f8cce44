"""Ground truth: what is really there, as people annotated it."""
