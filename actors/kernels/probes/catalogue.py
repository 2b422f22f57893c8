"""The attack list: every probe, the harmless ones first."""

from types import ModuleType

from actors.kernels.probes import (
    files,
    kernel_calls,
    network,
    privileges,
    protocol,
    resources,
    runaways,
    secrecy,
    siblings,
    unmapped,
)
from actors.kernels.probes.probe import Probe

_MODULES = (
    files,
    secrecy,
    network,
    siblings,
    privileges,
    kernel_calls,
    resources,
    unmapped,
    runaways,
    protocol,
)


def _probes_of(module: ModuleType) -> list[Probe]:
    return [value for value in vars(module).values() if isinstance(value, Probe)]


STAND_BY = siblings.stand_by
"""What the sibling runs; no attack."""
PROBES: tuple[Probe, ...] = tuple(
    sorted(
        (probe for module in _MODULES for probe in _probes_of(module) if probe is not STAND_BY),
        key=lambda probe: probe.lethal,
    )
)
"""All attacks, those that a kernel survives first."""
