"""Bytes and texts to what the core knows, and back."""
