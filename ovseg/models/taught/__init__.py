"""Models that were taught classes by masks, or are shown them by examples."""
