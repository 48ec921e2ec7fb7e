"""The golden model: integer graphs interpreted in numpy."""
