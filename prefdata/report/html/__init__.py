"""The report and the pairs of a build as HTML that does nothing: no script, nothing fetched."""
