"""Where matrices come from: modules, mappings and files, enumerated in one place."""
