"""Remote commands over UDP: `fastnet exec serve` and `fastnet exec run`.

    wire.py             wire format of exec/1, byte by byte
    client_protocol.py  client side, sans-I/O
    client.py           its socket and timers
    server_protocol.py  server side, sans-I/O: authentication, address validation, replay protection
    admission.py        checks that a new request passes before it runs
    record.py           what became of each request, as a state machine
    nonces.py           used nonces, in a file that outlives the server
    policy.py           the allow file: which commands may run
    runner.py           one command: process, pipes, time limit
    orphans.py          processes that outlive their command
    server.py           socket, processes, signals

Keys are in security/keys.py, MACs in security/mac.py.
Decision: plain Python in one thread, outside the tables of engines. The rate of remote commands is
small, and everything else about them matters more than speed.
"""
