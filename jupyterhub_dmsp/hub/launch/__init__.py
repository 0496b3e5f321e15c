"""What may be launched: the form, the check behind it, the part that all spawners share."""
