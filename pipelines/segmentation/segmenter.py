"""A trained U-Net at work: an image in, a label map on exactly the image's grid out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from feature_store.errors import LabelEmpty
from models.segmentation.recipe import Recipe
from pipelines.cases.rois import LabelName
from pipelines.imaging.images import check_image
from pipelines.segmentation.grid import RecipeGrid, likeliest, net_input
from pipelines.segmentation.pieces import clean

if TYPE_CHECKING:
    from torch import Tensor, nn

WINDOWS_AT_ONCE = 2


class Segmenter:
    """A recipe with its weights on a device (default: a GPU where there is one)."""

    def __init__(self, recipe: Recipe, weights: Mapping[str, Tensor], device: str | None = None) -> None:
        from models.segmentation.unet import best_device, load_net

        self.recipe = recipe
        self._device = device or best_device()
        self._net = load_net(recipe, weights, self._device)

    @property
    def labels(self) -> dict[int, LabelName]:
        """What each label number of :meth:`segment` stands for."""
        return {n: LabelName(one.structure, one.level, one.side) for n, one in enumerate(self.recipe.classes, start=1)}

    def segment(self, image: sitk.Image, file: str = "") -> sitk.Image:
        """Label map as unsigned 8 bit on the image's grid; label n is class n of the recipe, 0 is background.

        Raises what :func:`check_image` raises, and LabelEmpty where nothing was found.
        """
        check_image(image, self.recipe.sequence, file)
        found = segment_with(self._net, image, self.recipe, self._device)
        if not found.any():
            raise LabelEmpty(
                f"the U-Net found none of its {len(self.recipe.classes)} classes.",
                action=f"Check that this is a {self.recipe.sequence} of the lumbar spine.",
                file=file,
            )
        label_map = sitk.GetImageFromArray(found)
        label_map.CopyInformation(image)
        return label_map


def segment_with(net: nn.Module, image: sitk.Image, recipe: Recipe, device: str) -> np.ndarray:
    """Labels uint8 (z, y, x) on the image's voxels, cleaned; all 0 where nothing was found."""
    grid = RecipeGrid.of(image, recipe)
    probabilities = window_probabilities(net, net_input(image, grid, recipe), recipe, device)
    return clean(likeliest(probabilities, grid, image), recipe, float(np.prod(image.GetSpacing())))


def window_probabilities(net: nn.Module, voxels: np.ndarray, recipe: Recipe, device: str) -> np.ndarray:
    """Class probabilities float32 (1 + classes, z, y, x): windows as large as a patch, blended by a Gaussian weight.

    Windows are computed on the device and put together in the machine's own memory.
    """
    import torch
    from monai.inferers import sliding_window_inference

    from models.segmentation.unet import autocast

    def predict(windows: Tensor) -> Tensor:
        with autocast(device):
            logits: Tensor = net(windows)
        return torch.softmax(logits.float(), dim=1)

    with torch.inference_mode():
        blended = sliding_window_inference(
            torch.from_numpy(voxels)[None, None],
            roi_size=tuple(reversed(recipe.patch)),
            sw_batch_size=WINDOWS_AT_ONCE,
            predictor=predict,
            overlap=recipe.overlap,
            mode="gaussian",
            cval=float(voxels.min()),
            sw_device=device,
            device="cpu",
        )
    probabilities: np.ndarray = blended[0].numpy()
    return probabilities
