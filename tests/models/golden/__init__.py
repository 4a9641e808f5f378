"""Token layouts of libraries, held by stored outputs of small models."""
