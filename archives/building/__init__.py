"""From a model, its weights and its categories to a .mar archive."""
