"""Segmenting for others: over HTTP, and on a page in the browser."""
