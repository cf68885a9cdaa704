"""The template, the hooks and the pipelines, as far as they can be looked at without Azure."""
