"""Where archives are kept by name and version, and which version an alias stands for."""
