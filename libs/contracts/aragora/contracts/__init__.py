"""What crosses a service boundary: events, values and the topology of the bus. No I/O, no rules of one service."""
