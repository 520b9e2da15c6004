"""The stages that only runs on text have; pipelines/text.yaml lists them and the stages shared with images."""
