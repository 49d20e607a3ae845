"""Models at work: a folder with ONNX and card, tiles with halo, sharpened scenes."""
