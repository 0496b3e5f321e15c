"""The way in: traefik and the file of its routes."""
