"""Training the two branches."""
