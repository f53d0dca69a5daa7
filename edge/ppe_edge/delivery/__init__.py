"""From a message to the sinks: schema, outbox, delivery."""
