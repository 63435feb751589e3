"""What is computed: pure, no clock, no IO. Time is an argument everywhere.

The order of reading (and of imports): errors, units, event, expression, condition, tile, ledger,
definitions, profile, assignment, change, segmenter.
"""
