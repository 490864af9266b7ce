"""Original layouts of public data sets."""
