"""The study's report: one self-contained HTML page, its figures, its numbers.

Matplotlib is imported inside this package only, and through its object-oriented API: no global state.
"""
