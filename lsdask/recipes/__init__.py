"""Whole experiments over the rooms: the demo, one file a paper."""
