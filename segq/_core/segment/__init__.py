"""One segment: its ledger, its open batch, its large items, its RocksDB instance.

May import: `base`, `format`, `system`. Open `ledger.py` first (who has which item), then `batch.py` (where new items lie).
"""
