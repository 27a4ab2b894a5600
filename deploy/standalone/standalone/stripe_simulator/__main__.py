"""`python -m standalone.stripe_simulator`."""

from standalone.stripe_simulator.server import main

main()
