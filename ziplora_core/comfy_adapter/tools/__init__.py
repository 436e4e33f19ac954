"""Calibration, extraction, conversion, alignment scores and pictures judged by LoRAs."""
