"""The attestation policies that hold where a tenant has set none. They behave as CoCo's defaults do (kbs-protocol 2.6).

Each starts from the values that say *nothing good is known*: executables 33, hardware 97, configuration 36. Only what
matches reference values raises them, so a tenant without reference values accepts nothing. Two idioms: a measured value
must be **in** a list of accepted ones; a property must **equal** one value.

They name every place of ``input`` that they read in full, so that their results can be remembered. Texts are constants
because this floor opens no file. The rules of each TEE are in ``cpu_rules`` and ``device_rules``; one without rules
stays where it starts, contraindicated.
"""

from __future__ import annotations

from collections.abc import Mapping

from adyton.appraisal.cpu_rules import CPU_RULES
from adyton.appraisal.device_rules import GPU_RULES, SWITCH_RULES

DEFAULT_ID = "default"

_HEAD = """\
package policy

import rego.v1

# What is claimed for each aspect; 2 and 3 affirm, 32 and more warn, 96 and more condemn (AR4SI).
trust_claims := {
	"executables": executables,
	"hardware": hardware,
	"configuration": configuration,
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

default executables := 33

default hardware := 97

default configuration := 36
"""

_IDENTIFIERS = """\
# What the init data's agent policy says about the workload: bound to the evidence, and enforced by the guest.
extensions := [{
	"name": "ear.trustee.identifiers",
	"key": -18,
	"value": {"validated": object.union(images, users)},
}]

images := {"container_images": found} if {
	found := [image |
		some container in input.init_data_claims.agent_policy_claims.containers
		image := container.OCI.Annotations["io.kubernetes.cri.image-name"]
	]
	count(found) > 0
} else := {}

users := {"container_uids": found} if {
	found := [user |
		some container in input.init_data_claims.agent_policy_claims.containers
		user := container.OCI.Process.User.UID
	]
	count(found) > 0
} else := {}
"""


def _policy(*rules: str) -> str:
    return "\n".join([_HEAD, *rules])


DEFAULT_CPU = _policy(*CPU_RULES.values(), _IDENTIFIERS)
DEFAULT_GPU = _policy(GPU_RULES)
DEFAULT_SWITCH = _policy(SWITCH_RULES)
DEFAULTS: Mapping[str, str] = {"cpu": DEFAULT_CPU, "gpu": DEFAULT_GPU, "switch": DEFAULT_SWITCH}
"""By class of the evidence. A class without a default is refused until its owner sets a policy."""

RESOURCE_ALLOW_AFFIRMING = """\
package policy

import rego.v1

default allow := false

allow if {
	count(input.submods) > 0
	every submodule in input.submods {
		submodule["ear.status"] == "affirming"
	}
}
"""
