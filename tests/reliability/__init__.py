"""What the pack promises about faults, measured: `make reliability` writes docs/RELIABILITY.md.

Each part is a module of this folder with one function, `measure`.
"""
