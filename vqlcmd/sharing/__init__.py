"""What leaves a checkout: a trained model as a folder of its own, and a pipeline to start from."""
