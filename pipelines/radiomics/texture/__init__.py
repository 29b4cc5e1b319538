"""PyRadiomics' texture, intensity and shape features by compiled kernels, with PyRadiomics' values.

Counts (co-occurrences, runs, zones, dependences) are whole numbers, so any correct algorithm is exact.
What is summed in floating point is summed in the order NumPy sums it inside PyRadiomics: pairwise along
contiguous memory, plainly one after another otherwise, in the memory order that PyRadiomics' arrays
happen to have. ``log2`` and powers stay NumPy's. So nearly every value has the same last bit.

Kernels are compiled by Numba on first use and cached beside their source (``pipelines.radiomics.extractor.warm_up``
does it ahead of time; :mod:`pipelines.radiomics.texture.compiled` says when again).
"""
