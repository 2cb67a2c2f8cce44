"""Which pictures of a run need a person, and why."""
