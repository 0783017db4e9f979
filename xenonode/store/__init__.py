"""Values of any use under their writers' names, beside what the platform itself keeps in the overlays."""
