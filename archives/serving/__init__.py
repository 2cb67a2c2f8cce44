"""A TorchServe on this machine: its start and end, what it serves, how that is exchanged."""
