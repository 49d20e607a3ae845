"""Training: batches with augmentation, fit, scores on the test split, export."""
