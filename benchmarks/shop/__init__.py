"""A few models to measure on."""
