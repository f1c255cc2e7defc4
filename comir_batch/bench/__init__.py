"""Benchmarks: pairs with a known truth, and what is measured on them."""
