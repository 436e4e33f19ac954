"""What every trainer takes on a card, SDXL in its full size: `make card`, `make peaks`."""
