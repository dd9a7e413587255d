"""One example of each registered policy, with the parameters of a published model."""

import ropewalk as rw

EXAMPLES = {name: type(rw.policy(name)).example() for name in rw.policies()}
