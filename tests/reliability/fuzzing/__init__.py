"""Fuzzing of everything that reads what others wrote.

`seeds` builds good inputs by code, `mutation` damages them, `targets` reads them, `loop` counts
what happens in child processes, and `guided` lets atheris choose inputs by the code they reach.
"""
