"""One program for each system that `benchmarks.peers` measures, in that system's environment."""
