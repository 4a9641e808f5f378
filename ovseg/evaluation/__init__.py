"""Benchmarks, protocols and metrics."""
