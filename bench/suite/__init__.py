"""The comparison behind `scripts/bench`: Transom beside its peers in one run, as ratios against stated targets."""
