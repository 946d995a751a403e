"""What is counted and how it is summed up: counters, histograms, reports."""
