"""Masked models, in which a token is known or [mask]: what training and sampling share. Section 8 of docs/method.md."""
