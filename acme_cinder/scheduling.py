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

"""Default functions of a pool for Cinder's scheduler.

``filter_function`` and ``goodness_function`` in a back end's section override
them. Cinder evaluates them if DriverFilter and GoodnessWeigher are enabled.

Every report contains new functions for each pool, with its figures instead of
names: Cinder's evaluator truncates named figures to integers, and cannot read
names at all with pyparsing 3.3.3, where a function with a name keeps volumes
away from every pool (scheduler/evaluator/evaluator.py;
github.com/pyparsing/pyparsing/issues/672).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def filter_function(report: Mapping[str, Any]) -> str:
    """Require more free space than the reserve.

    Cinder's CapacityFilter does not require this for thin volumes: it
    considers only the provisioned space.

    :param report: the pool's, from :mod:`.stats`.
    """
    reserved = (
        report["total_capacity_gb"] * report["reserved_percentage"] / 100
    )
    return f"{report['free_capacity_gb']:.2f} > {reserved:.2f}"


def goodness_function(report: Mapping[str, Any]) -> str:
    """The remaining share of the pool, from 0 to 100.

    The lesser of the free space without the reserve, and the space that can
    still be provisioned.
    """
    total = report["total_capacity_gb"]
    if not total:
        return "0"
    left = [report["free_capacity_gb"] / total]
    ratio = report["max_over_subscription_ratio"]
    # Cinder computes "auto" from the free space, which is sufficient.
    if ratio != "auto":
        left.append(1 - report["provisioned_capacity_gb"] / (total * ratio))
    percent = 100 * min(left) - report["reserved_percentage"]
    return f"{max(percent, 0):.0f}"
