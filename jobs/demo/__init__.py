"""The detector that ships with the project: its scenes, its training and its evaluation."""
