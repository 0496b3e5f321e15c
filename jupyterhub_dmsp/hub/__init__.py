"""Inside JupyterHub: login, tokens, profiles, isolated sessions."""
