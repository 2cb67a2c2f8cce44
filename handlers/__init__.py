"""All that travels inside a .mar: a detector, its explanations, TorchServe's entry point."""

__version__ = "0.1.0"
