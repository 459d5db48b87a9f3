"""One file per command: (cluster, options, fleet) -> a report that pickles. Here the layers above are composed."""
