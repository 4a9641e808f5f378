"""Labels that stay the same from frame to frame."""
