"""Teaching a model classes by masks."""
