"""Attempts to break ovseg that can be repeated: `python -m tests.campaign --help`."""
