"""Who vouches for an archive: keys, signatures, and the check."""
