"""Report and pairs of a build as static HTML: no script, no external resource."""
