"""How well each merge keeps its subject and its style, measured on the miniature SDXL.

Reading order: `subjects` (what is merged), `sources` (training the LoRAs), `methods` (merging
them), `measure`, `experiment` (all of it for one pair), `sheet` and `table`.
"""
