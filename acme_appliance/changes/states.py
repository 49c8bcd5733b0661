# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The states of shares and snapshots, and their transitions.

``error`` means that the data is proven to be missing or was never complete:
the pool is usable, and the subvolume or its file is missing. Each start
checks it again. Any state may be followed by ``deleting``.
"""

from collections.abc import Mapping
from typing import Final

from acme_appliance.db import models
from acme_appliance.types import State

#: The states that may follow each state. An undone change returns to the
#: previous state.
TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.CREATING: frozenset({State.AVAILABLE, State.ERROR, State.DELETING}),
    State.AVAILABLE: frozenset(
        {
            State.EXTENDING,
            State.REVERTING,
            State.MOVING,
            State.DEGRADED,
            State.ERROR,
            State.DELETING,
        }
    ),
    State.DEGRADED: frozenset(
        {State.EXTENDING, State.AVAILABLE, State.ERROR, State.DELETING}
    ),
    State.EXTENDING: frozenset(
        {State.AVAILABLE, State.DEGRADED, State.ERROR, State.DELETING}
    ),
    State.REVERTING: frozenset({State.AVAILABLE, State.ERROR, State.DELETING}),
    State.MOVING: frozenset({State.AVAILABLE, State.ERROR, State.DELETING}),
    State.DELETING: frozenset({State.AVAILABLE, State.DEGRADED, State.ERROR}),
    State.ERROR: frozenset({State.AVAILABLE, State.DEGRADED, State.DELETING}),
}


def move(row: models.Share | models.Snapshot, state: State) -> None:
    """Set a row's state; the current one is always allowed.

    :raises ValueError: the transition is not allowed, which is a bug.
    """
    before = State(row.state)
    if state != before and state not in TRANSITIONS[before]:
        raise ValueError(f"{row.id} cannot go from {before} to {state}")
    row.state = state
