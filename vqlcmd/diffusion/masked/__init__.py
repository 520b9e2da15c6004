"""Masked models: what training and sampling share where tokens are known or [mask]. Section 8 of docs/method.md."""
