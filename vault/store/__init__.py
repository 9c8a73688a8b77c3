"""The cache on disk: plain files under readable names, and an index of what is known about them."""
