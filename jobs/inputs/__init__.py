"""What a job is given: the input listed as a sorted stream, and kept as the plan of its shards."""
