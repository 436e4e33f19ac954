"""Nodes that draw figures, grids and scores."""
