"""The same protocol on uvloop."""

import asyncio_datagram
import uvloop

uvloop.run(asyncio_datagram.main())
