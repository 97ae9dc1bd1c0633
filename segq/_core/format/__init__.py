"""The format on disk: every file name and every byte that segq writes. Pure: no input or output.

May import: `base`. Open `format.py` first (its docstring draws the directory), then `blocks.py`.
"""
