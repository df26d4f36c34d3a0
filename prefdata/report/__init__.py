"""Reports of a build or a validation, for machines and for people."""
