"""Ways to clean score maps: along the edges of the image, or among patches that look alike."""
