"""A Modbus TCP server that Ledge's authors did not write, for the tests beside it and the quickstart's.

Usage: server.py PORT

Prints `ready` when it listens, then one JSON line for every write it receives. Its values are encoded by pymodbus.
Always starts with the same values, like a device that forgets its settings when it loses power.
"""

import asyncio
import json
import sys

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

WRITES = {5, 6, 15, 16}


async def seen(function_code, _start, address, _count, _registers, set_values):
    """Tells of writes."""
    # pymodbus reads back what it wrote, with no values.
    if function_code in WRITES and set_values is not None:
        print(json.dumps({"function": function_code, "address": address, "values": set_values}), flush=True)


def device():
    """One unit with the four tables apart."""
    coils = [SimData(0, values=[False, True, True, False, True, False, False, False], datatype=DataType.BITS)]
    discrete = [SimData(0, values=[True, False, True, False, False, False, False, False], datatype=DataType.BITS)]
    holding = [
        SimData(0, values=215, datatype=DataType.INT16),
        SimData(10, values=300, datatype=DataType.INT16),
        SimData(20, values=[23.4], datatype=DataType.FLOAT32),
        SimData(30, values="Ledge!", datatype=DataType.STRING),
        SimData(40, values=[-5_000_000_000], datatype=DataType.INT64),
        SimData(50, values=[0.1], datatype=DataType.FLOAT64),
        SimData(60, values=[1], datatype=DataType.INT16, readonly=True),
    ]
    registers = [
        SimData(0, values=-55, datatype=DataType.INT16),
        SimData(1, values=[-70_000], datatype=DataType.INT32),
    ]
    return SimDevice(id=1, simdata=(coils, discrete, holding, registers), action=seen)


async def main():
    """Serves until killed."""
    server = ModbusTcpServer(device(), address=("127.0.0.1", int(sys.argv[1])))
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
