"""What was lost: metrics and differences."""
