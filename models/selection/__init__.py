"""Selectors: scaling, filters, PCA and LASSO, fitted on training patients and kept as plain arrays."""
