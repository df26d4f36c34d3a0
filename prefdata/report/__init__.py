"""What a build or a validation found, in numbers, for machines and for people."""
