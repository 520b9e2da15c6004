"""The stages that runs on text have of their own: pipelines/text.yaml lists them with those that they share."""
