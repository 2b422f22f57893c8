"""The attack list: every probe, the harmless ones first."""

from types import ModuleType

from actors.kernels.probes import (
    files,
    hiding,
    kernel_calls,
    network,
    privileges,
    protocol,
    resources,
    runaways,
    secrecy,
    shares,
    siblings,
    unmapped,
)
from actors.kernels.probes.probe import Probe

_MODULES = (
    files,
    secrecy,
    network,
    siblings,
    shares,
    privileges,
    kernel_calls,
    resources,
    hiding,
    unmapped,
    runaways,
    protocol,
)


def _probes_of(module: ModuleType) -> list[Probe]:
    return [value for value in vars(module).values() if isinstance(value, Probe)]


STAND_BY = siblings.stand_by
"""What the sibling runs; no attack."""
TAKE_A_SHARE = shares.take_a_share
"""What the sibling runs after an attack that keeps what it took; no attack either."""
PROBES: tuple[Probe, ...] = tuple(
    sorted(
        (
            probe
            for module in _MODULES
            for probe in _probes_of(module)
            if probe not in (STAND_BY, TAKE_A_SHARE)
        ),
        key=lambda probe: probe.lethal,
    )
)
"""All attacks, those that a kernel survives first."""
