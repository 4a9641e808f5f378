"""From shards to batches: which pairs, in which order, decoded, augmented and tokenised."""
