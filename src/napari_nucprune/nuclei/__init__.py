"""From the two maps to nuclei."""
