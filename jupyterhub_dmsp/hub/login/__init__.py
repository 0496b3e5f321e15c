"""Login at the identity provider, and tokens that stay fresh."""
