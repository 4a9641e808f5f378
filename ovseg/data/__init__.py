"""Reading and describing what goes in: images, class lists, datasets."""
