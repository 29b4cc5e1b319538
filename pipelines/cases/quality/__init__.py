"""Quality control of a series and of its ROIs before features are extracted: verdicts with reasons."""
