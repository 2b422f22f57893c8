"""A process with running kernels, to be killed.

python -m benchmarks.kernels.actor LAUNCHER COUNT
"""

import asyncio
import sys

import uvloop

from actors.kernels.launchers import make_launcher
from common.config import Kernel

_CHILD = "import subprocess; child = subprocess.Popen(['sleep', '60'])"


async def main(name: str, count: int) -> None:
    launcher = make_launcher(Kernel(launcher=name))  # type: ignore[arg-type]
    await launcher.start()
    kernels = [await launcher.launch() for _ in range(count)]
    spinning = [
        asyncio.create_task(kernel.execute("while True: pass", timeout_s=600))
        for kernel in kernels[::4]
    ]
    for kernel in kernels[1::4]:
        await kernel.execute(
            "import subprocess; p = subprocess.Popen(['sleep', '60'])", timeout_s=9
        )
    print("ready", flush=True)
    await asyncio.gather(*spinning)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
