"""What judges a heatmap."""
