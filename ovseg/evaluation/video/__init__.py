"""Videos with a mask for every frame: how good labels are, and how steady."""
