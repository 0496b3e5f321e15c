"""Identity: tokens, where they come from and how they stay fresh. Knows no hub from the inside and no Jupyter."""
