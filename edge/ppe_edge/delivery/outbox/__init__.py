"""The outbox: stores messages, their snapshots and clips on the disk until every sink has confirmed them."""
