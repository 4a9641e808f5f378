"""Models trained on captions by others and read at their patches: TIPSv2, dino.txt, GroupViT."""
