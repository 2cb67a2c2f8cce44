"""What a method looks at, gathered from a detector: gradients, ablations, masked pictures."""
