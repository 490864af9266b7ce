"""Scores to thresholds to masks, and what they cost."""
