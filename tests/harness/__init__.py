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

"""Runs an appliance, Cinder and hosts for tests, demonstration and benchmarks.

=================== ========================================================
``inprocess``       a complete appliance in this process, over HTTPS
``transports``      loses replies and counts requests on the client's side
``appliance``       ``acme-appliance serve`` as a process, as operators run it
``stack``           that appliance and a real Cinder that uses it
``scenario``        the steps of the demonstration and tests/e2e
``compute``         the mounts and reads of a hypervisor
``launcher``        a service in processes that are killed at a given step
``machine``         the machine's file systems, exports and loop devices
``httpserver``      base of the HTTP servers
``nfswire``         NFS calls, byte by byte
=================== ========================================================
"""
