"""Tests that need PyTorch, torchdata, grain or TensorFlow: tools/python test --frameworks."""
