"""How well each merge keeps its subject and its style, measured on the miniature SDXL.

Reading order: `subjects` (what is merged), `sources` (training the LoRAs), `methods` (merging
them), `measure`, `experiment` (one method on one pair), `benchmark` (all methods on one pair),
`record` (what the test compares with), `table`, `sheet`, `document`.
"""
