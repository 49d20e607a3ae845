"""Pairs for training: scenes degraded by Wald's protocol, cut into patches, on disk with a card."""
