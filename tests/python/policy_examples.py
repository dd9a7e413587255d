"""Every policy of the registry as some model has it."""

import ropewalk as rw

EXAMPLES = {name: type(rw.policy(name)).example() for name in rw.policies()}
