"""The process that runs the archive's code on shards: fetch, explain, commit."""
