"""Bundles after they are made: opened where they lie, taken apart, put together again."""
