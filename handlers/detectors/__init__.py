"""Adapters: detectors behind the four verbs. Nothing here knows a CAM method."""
