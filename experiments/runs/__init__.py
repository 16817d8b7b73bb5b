"""A run: its plan, its directory, its features, the heads it trains."""
