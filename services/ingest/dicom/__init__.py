"""The DICOM doors: STOW-RS and C-STORE in, one case of each patient out."""
