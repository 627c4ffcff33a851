"""Bytes become pictures: decoding, fetching, and the steps of which a family's preparation is made. Knows no model."""
