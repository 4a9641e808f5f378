"""Teaching a model classes by masks, with its towers frozen."""
