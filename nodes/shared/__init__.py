"""Inputs, outputs, types and progress reporting shared by several nodes."""
