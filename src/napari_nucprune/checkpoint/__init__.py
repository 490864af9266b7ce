"""The two-branch network and its files."""
