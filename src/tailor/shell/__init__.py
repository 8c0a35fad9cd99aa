"""Everything that a person sees: commands, progress, figures, pages."""
