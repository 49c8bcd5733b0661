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

"""What Cinder and the appliance do not agree about.

Everything is found by comparing the appliance's lists with Cinder's database.
An orphan is removed only if it is proven to be one: Cinder's own records say
that the object was deleted, nothing of Cinder names it, nothing uses it, and
that has been so for a while. All of that is looked up again before the
removal. What cannot be proven is only shown.
"""
