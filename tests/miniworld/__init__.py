"""A small world drawn by code, a miniature SDXL that learned it, and what they measure.

Reading order: `shapes`, `styles`, `scenes` (what a picture shows, and its caption), `world` (which
pictures there are), then `checkpoint` and the trainers, `probes`, and the benchmark in `quality/`.
"""
