"""What changed between two runs over the same pictures, and whether that is more than chance."""
