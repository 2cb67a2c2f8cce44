"""Methods: activations and gradients to heatmaps. Nothing here knows a detector."""
