"""Artefacts on disk: read with care, compared with each other, and written or not."""
