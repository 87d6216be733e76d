"""Checkpoints: folders on disk, the Hub, converters of official layouts, bundled weights."""
