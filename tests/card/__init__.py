"""Time and memory of every trainer on a card, with full-size SDXL: `make card`, `make peaks`."""
