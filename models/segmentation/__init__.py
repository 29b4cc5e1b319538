"""3D U-Net segmentation: the recipe, the net, how it is fitted and how well it does."""
