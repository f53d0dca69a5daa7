"""What several packages of the box need: pauses between tries, a clock that may be wrong, log lines without passwords."""
