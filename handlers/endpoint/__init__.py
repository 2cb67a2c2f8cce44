"""What the endpoint does with a batch of requests, without a word of TorchServe: read, detect,
explain, write."""
