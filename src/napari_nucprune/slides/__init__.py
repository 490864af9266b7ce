"""Reading images and slides, and writing results."""
