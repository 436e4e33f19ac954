"""Calibration, extraction, conversion and alignment scores."""
