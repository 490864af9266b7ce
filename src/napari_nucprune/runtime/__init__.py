"""Running a pruned checkpoint on a field."""
