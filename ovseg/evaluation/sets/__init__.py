"""The benchmark sets of the field, read from their folders as downloaded."""
