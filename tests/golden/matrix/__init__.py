"""The golden matrix: options and versions, every pair of which stands in some case."""
