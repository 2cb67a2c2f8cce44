"""Detections and maps judged by figures: what `jobs evaluate` and `jobs sanity` do."""
