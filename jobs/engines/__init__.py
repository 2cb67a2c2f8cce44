"""Who runs a job's shards: processes of this machine, or a Ray cluster's actors."""
