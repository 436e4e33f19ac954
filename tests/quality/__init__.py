"""How well each merge keeps its subject and its style, measured on the miniature SDXL.

Reading order: `subjects` (what is merged), `sources` (training the LoRAs), `single` (each alone),
`methods` (merging them), `conditions` (under what pictures are drawn), `measure`, `experiment` (one
method on one pair), `benchmark` (all methods on all pairs), `stats`, `table`, `sheet`, `document`;
`judge`, `judge_features`, `judge_tables`; `record` (what the test compares with). `cache` keeps
what is made, `workers` are the processes.
"""
