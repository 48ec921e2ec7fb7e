"""Model families, training, data and features."""
