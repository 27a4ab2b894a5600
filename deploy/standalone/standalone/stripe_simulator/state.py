"""What the routes share: one world, the requests to it, its webhooks and the trouble that was ordered."""

from dataclasses import dataclass, field

from standalone.stripe_simulator.calls import Calls
from standalone.stripe_simulator.faults import Faults
from standalone.stripe_simulator.webhooks import Deliveries
from standalone.stripe_simulator.world import World

SECRET_KEY = "sk_test_simulator_not_a_secret"  # noqa: S105  made up, and opens nothing but a simulator
WEBHOOK_SECRET = "whsec_simulator_not_a_secret"  # noqa: S105  likewise


@dataclass
class Simulator:
    """One simulator, behind one address."""

    world: World
    deliveries: Deliveries
    secret_key: str = SECRET_KEY
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.calls = Calls(self.world)
