"""Nodes that several trainers use: options and training images."""
