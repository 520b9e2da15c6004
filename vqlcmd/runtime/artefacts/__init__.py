"""Artefacts on disk: read with care, compared with each other, and written whole or not at all."""
