"""What a run's heatmaps say about its detector, and what a person should look at."""
