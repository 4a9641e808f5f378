"""Networks that turn images into groups and words into class embeddings."""
