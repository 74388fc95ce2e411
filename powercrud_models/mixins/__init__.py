"""What users inherit from."""
