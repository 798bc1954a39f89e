"""Training: documents to token shards to batches, the trainer, and the loop around them."""
