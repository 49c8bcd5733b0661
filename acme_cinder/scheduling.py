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

"""What Cinder's scheduler is asked to think of a pool, by default.

``filter_function`` and ``goodness_function`` of a back end's section take the
place of both. Cinder evaluates them where its DriverFilter and
GoodnessWeigher are switched on.

They are made anew with every report, for each pool, with its figures in
them and not with names: Cinder's evaluator cuts the fractions of named
figures off, and cannot read names at all with pyparsing 3.3.3, where a
function with one keeps volumes away from every pool
(scheduler/evaluator/evaluator.py; github.com/pyparsing/pyparsing/issues/672).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def filter_function(report: Mapping[str, Any]) -> str:
    """What is really free is more than what is reserved.

    Cinder's own CapacityFilter does not ask for that where volumes are
    thin: it adds up only what was promised.

    :param report: the pool's, as :mod:`.stats` makes it.
    """
    reserved = (
        report["total_capacity_gb"] * report["reserved_percentage"] / 100
    )
    return f"{report['free_capacity_gb']:.2f} > {reserved:.2f}"


def goodness_function(report: Mapping[str, Any]) -> str:
    """A number from 0 to 100: what part of the pool is left.

    Of what is really free, less what is reserved, and of what may still be
    promised, it is the lesser.
    """
    total = report["total_capacity_gb"]
    if not total:
        return "0"
    left = [report["free_capacity_gb"] / total]
    ratio = report["max_over_subscription_ratio"]
    # Cinder works "auto" out from what is free: that says it all.
    if ratio != "auto":
        left.append(1 - report["provisioned_capacity_gb"] / (total * ratio))
    percent = 100 * min(left) - report["reserved_percentage"]
    return f"{max(percent, 0):.0f}"
