"""CAM to box: heatmaps thresholded into boxes, and these held against ground truth."""
