"""Targets: which scalar of the detector's outputs is explained. Nothing here knows a detector."""
