"""OVSegmentor (Xu et al., CVPR 2023): groups learned from images with captions."""
