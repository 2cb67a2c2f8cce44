"""Detectors explained in bulk: pictures in from an object store or folders, findings back out."""
