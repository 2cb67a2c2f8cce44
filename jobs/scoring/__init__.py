"""Detections held against ground truth: matching, average precision, saved boxes."""
