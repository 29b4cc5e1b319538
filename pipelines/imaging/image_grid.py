"""An image's voxels as places in the patient: where a mask that comes as planes or contours has to lie.

Points are in mm of the patient's coordinates (LPS, as DICOM and ITK have them); indices run x, y, z and are whole
numbers at voxel centres.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from feature_store.errors import GridMismatch
from pipelines.imaging.images import LoadedImage

GRID_TOLERANCE = 1e-3
"""How far apart two voxel centres may lie to be the same voxel, as a share of the smallest voxel size.

Headers hold float32 or decimal text: at 500 mm from the origin that moves a centre by about 1e-4 mm, a
fifth of this at 0.5 mm voxels. A mask that is really shifted, were it by a hundredth of a voxel, is refused.
"""
SAME_GRID = "Draw or resample the mask on this very image, with nearest neighbour, and send it again."


class ImageGrid:
    """The grid of an image, and of a DICOM series also where its slices really lie.

    Headers round slice positions, and the image evens them out; what was drawn on a slice is matched with the
    slice's own position.
    """

    def __init__(self, loaded: LoadedImage) -> None:
        image = loaded.image
        self.size = np.array(image.GetSize())
        self.direction = np.array(image.GetDirection()).reshape(3, 3)
        self.spacing = np.array(image.GetSpacing())
        self._origin = np.array(image.GetOrigin())
        self.frame_of_reference = loaded.header.frame_of_reference if loaded.header else ""
        self._real = np.array(loaded.slice_origins).reshape(-1, 3)

    @property
    def tolerance_mm(self) -> float:
        return GRID_TOLERANCE * float(self.spacing.min())

    def index(self, points: np.ndarray) -> np.ndarray:
        """Continuous indices of points, both (n, 3)."""
        points = np.asarray(points, dtype=float)
        if len(self._real):
            normal = self.direction[:, 2]
            heights = self._real @ normal
            slices = np.abs((points @ normal)[:, None] - heights[None, :]).argmin(axis=1)
            even = self._origin + slices[:, None] * self.spacing[2] * normal
            points = points + even - self._real[slices]
        return (points - self._origin) @ self.direction / self.spacing

    def distance_mm(self, index: np.ndarray) -> np.ndarray:
        """How far each continuous index (n, 3) lies from the nearest voxel centre."""
        return np.asarray(np.linalg.norm((index - np.rint(index)) * self.spacing, axis=1))

    def holds(self, index: np.ndarray) -> np.ndarray:
        """Whether each whole index (n, 3) is a voxel of the image."""
        return np.asarray(((index >= 0) & (index < self.size)).all(axis=1))

    def check_frame_of_reference(self, uid: str, file: str) -> None:
        """Raises GridMismatch where both sides name their coordinate system and it is not the same."""
        if uid and self.frame_of_reference and uid != self.frame_of_reference:
            raise mismatch(
                "it was drawn in another frame of reference (another examination, or a registered one)", file
            )

    def label_map(self, voxels: np.ndarray, image: sitk.Image) -> sitk.Image:
        """``voxels`` (z, y, x; uint16) as an image on exactly this grid."""
        mask = sitk.GetImageFromArray(voxels)
        mask.CopyInformation(image)
        return mask


def mismatch(difference: str, file: str) -> GridMismatch:
    """The error for a mask that lies elsewhere; ``difference`` has the size, angle or millimetres."""
    return GridMismatch(f"mask and image do not share their voxels: {difference}.", action=SAME_GRID, file=file)
