"""Measurements, one command each. Figures are ratios to bare work done in the same run."""
