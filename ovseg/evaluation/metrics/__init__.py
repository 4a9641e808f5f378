"""What a set of label maps is worth: overlap, boundaries, grouping, and how sure one can be."""
